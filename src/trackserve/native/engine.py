"""The whole way of an event on the native engine, with the results of the reference.

Hits are put in an order in which those close together in the embedding are close together in memory,
and the stages work in that order, on edges that are int32 and not sorted. Only :meth:`NativePipeline.run`
brings what each stage gave into the form of the pipeline's types.

    place [N]  the canonical row of each hit in space order
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from trackserve.event import Float32, Graph, Int32, Int64, ScoredGraph, Tracks
from trackserve.native.library import Library, library
from trackserve.native.networks import NativeNetwork, UnknownNetworkError
from trackserve.pipeline import Pipeline, StageOutputs
from trackserve.pipeline.features import cylindrical
from trackserve.pipeline.filter import least_logit
from trackserve.pipeline.gnn import scores_of
from trackserve.pipeline.networks import load_network, run_network

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.pipeline.components import TrackBuilder
    from trackserve.pipeline.features import FeatureColumns
    from trackserve.pipeline.neighbours import DoubletCuts

Edges = tuple[Int32, Int32]
"""Rows of inner and of outer hits, each ``[E]``."""
TOLERANCE = 1e-4
"""Largest difference of a float32 output from the reference's, relative to the largest output."""


class Network(Protocol):
    """A network that takes edges as two int32 arrays."""

    def __call__(
        self, features: Float32, edges: Edges | None = None, *, threads: int = 1
    ) -> Float32:
        """Return ``[N, D]`` from features, ``[E]`` from features and edges."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the stages gave; ``order`` ``[N]`` as in StageOutputs, hits of edges in space order."""

    features: Float32
    order: Int64
    place: Int32
    embedding: Float32
    candidates: Edges
    filtered: Edges
    scores: Float32
    labels: Int64


class NativePipeline(Pipeline):
    """A bundle on the native engine; where it can't run a network, the reference runs that one.

    ``precision`` is what the networks are computed in, the bundle's own if None; ``notes`` says in
    one sentence each what is not as asked for. Raises :class:`MissingDependencyError` where the
    engine is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        precision: str | None = None,
        variant: str | None = None,
    ) -> None:
        self.bundle = bundle
        self.threads = threads
        self.library = library(variant)
        self.notes: list[str] = []
        self.precision = self._available(precision or bundle.precision)
        self._embed = self._network(bundle.embedding_path)
        self._filter_logits = self._network(bundle.filter_path)
        self._gnn_logits = self._network(bundle.gnn_path)

    def _available(self, precision: str) -> str:
        if precision in self.library.precisions():
            return precision
        self.notes.append(
            f"{precision} is computed in float32 by the engine's {self.library.variant} variant"
        )
        return "float32"

    def _network(self, path: Path) -> Network:
        reference = _Reference(path, self.threads)
        try:
            check_agreement(NativeNetwork(path, self.library), reference, self.bundle.features)
            return NativeNetwork(path, self.library, precision=self.precision)
        except UnknownNetworkError as error:
            self.notes.append(f"the reference engine runs {path.name}: {error}")
            warnings.warn(self.notes[-1], stacklevel=3)
            return reference

    def find_tracks_from_features(self, features: Float32) -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``."""
        found = self._find(features)
        labels = np.empty_like(found.labels)
        labels[found.order] = found.labels
        return Tracks(labels)

    def run(self, features: Float32) -> StageOutputs:
        """Run every stage on scaled features ``[N, F]`` and return what each gave."""
        found = self._find(features)
        candidates, _ = sorted_edges(found.candidates, found.place)
        filtered, which = sorted_edges(found.filtered, found.place)
        graph = found.features
        return StageOutputs(
            found.order,
            found.embedding,
            Graph(graph, candidates),
            Graph(graph, filtered),
            ScoredGraph(graph, filtered, found.scores[which]),
            Tracks(found.labels),
        )

    def _find(self, features: Float32) -> Found:
        bundle, run, threads = self.bundle, self.library, self.threads
        bundle.check_features(features)
        order = canonical_order(features, bundle.features, run)
        features = features[order]
        self._tell("order")
        embedding = self._embed(features, threads=threads)
        self._tell("embedding")
        place = run.space_order(embedding, threads)
        local = features[place]
        candidates = _space_neighbours(
            embedding,
            local,
            place,
            bundle.features,
            radius=bundle.radius,
            limit=bundle.neighbour_limit,
            cuts=bundle.doublet_cuts,
            threads=threads,
            library=run,
        )
        self._tell("neighbours", len(candidates[0]))
        logits = self._filter_logits(local, candidates, threads=threads)
        self._tell("filter")
        filtered = run.keep_edges(logits, float(least_logit(bundle.filter_cut)), *candidates)
        self._tell("cut", len(filtered[0]))
        scores = scores_of(self._gnn_logits(local, filtered, threads=threads))
        self._tell("gnn")
        inner, outer = place[filtered[0]], place[filtered[1]]
        labels = _labels(len(features), (inner, outer), scores, bundle.track_builder, run)
        self._tell("tracks")
        return Found(features, order, place, embedding, candidates, filtered, scores, labels)


class _Reference:
    """A network on onnxruntime that takes edges as the native engine has them."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = load_network(path, threads)

    def __call__(
        self, features: Float32, edges: Edges | None = None, *, threads: int = 1
    ) -> Float32:
        del threads  # fixed when the network was loaded
        if edges is None:
            return run_network(self._session, features)
        if not len(edges[0]):
            return np.empty(0, np.float32)
        return run_network(self._session, features, np.stack(edges).astype(np.int64))


def check_agreement(native: NativeNetwork, reference: Network, columns: FeatureColumns) -> None:
    """Raise :class:`UnknownNetworkError` unless both give the same outputs for a made-up event.

    A file's metadata may describe another network than the one that its graph computes.
    """
    rng = np.random.default_rng(0)
    hits = 64
    features = rng.random((hits, len(columns.columns)), np.float32)
    features[:, columns.columns.index("z")] -= np.float32(0.5)
    edges = None
    if native.family.kind != "embedding":
        inner = np.repeat(np.arange(hits - 4, dtype=np.int32), 4)
        edges = inner, inner + np.tile(np.arange(1, 5, dtype=np.int32), hits - 4)
    found, expected = native(features, edges), reference(features, edges)
    difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    if not difference <= TOLERANCE * max(1, np.abs(expected).max()):
        message = f"its output differs from the described network's by {difference:.2g}"
        raise UnknownNetworkError(message)


def canonical_order(features: Float32, columns: FeatureColumns, library: Library) -> Int64:
    """Return what :func:`trackserve.pipeline.features.canonical_order` does."""
    r, _, z = cylindrical(features, columns)
    return library.canonical_order(np.ascontiguousarray(features), r * r + z * z)


def neighbours(
    embedding: Float32,
    features: Float32,
    columns: FeatureColumns,
    *,
    radius: float,
    limit: int,
    cuts: DoubletCuts,
    threads: int = 1,
    library: Library,
) -> Graph:
    """Return what :func:`trackserve.pipeline.neighbours.neighbours` does.

    A hit whose embedding is not finite has no neighbours.
    """
    embedding = np.ascontiguousarray(embedding)
    place = library.space_order(embedding, threads)
    edges = _space_neighbours(
        embedding,
        features[place],
        place,
        columns,
        radius=radius,
        limit=limit,
        cuts=cuts,
        threads=threads,
        library=library,
    )
    return Graph(features, sorted_edges(edges, place)[0])


def build_tracks(graph: ScoredGraph, builder: TrackBuilder, library: Library) -> Tracks:
    """Return what :func:`trackserve.pipeline.components.build_tracks` does."""
    inner, outer = graph.edges.astype(np.int32)
    return Tracks(_labels(len(graph.features), (inner, outer), graph.scores, builder, library))


def sorted_edges(edges: Edges, place: Int32) -> tuple[Int64, Int64]:
    """Return edges ``[2, E]`` in canonical rows, sorted, and which edge ``[E]`` each one was."""
    pair = place[edges[0]].astype(np.int64) * len(place) + place[edges[1]]
    which = np.argsort(pair)
    pair = pair[which]
    return np.stack(np.divmod(pair, len(place))) if len(place) else np.empty(
        (2, 0), np.int64
    ), which


def _space_neighbours(
    embedding: Float32,
    local: Float32,
    place: Int32,
    columns: FeatureColumns,
    *,
    radius: float,
    limit: int,
    cuts: DoubletCuts,
    threads: int,
    library: Library,
) -> Edges:
    """Return edges between the hits in space order, whose features ``local`` are ``[N, F]``."""
    r, phi, z = (np.ascontiguousarray(column) for column in cylindrical(local, columns))
    return library.neighbours(
        embedding[place],
        (r, phi, z),
        place,
        # cKDTree keeps pairs whose squared distance is at most this.
        squared_radius=float(np.nextafter(radius * radius, np.inf)),
        limit=limit,
        cuts=(cuts.slope, cuts.z0, cuts.dphi, cuts.dcot),
        threads=threads,
    )


def _labels(
    hits: int, edges: Edges, scores: Float32, builder: TrackBuilder, library: Library
) -> Int64:
    return library.build_tracks(
        hits,
        *edges,
        scores,
        cut=float(np.float32(builder.cut)),
        walk=builder.method == "walk",
        min_hits=builder.min_hits,
    )
