"""The way of an event: hits to tracks in four networks and three algorithms.

hits -> features -> embedding -> neighbours -> filter -> triplets -> gnn -> components -> tracks
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.columns import HitsLike, as_hits
from trackserve.event import Float32, Graph, Int64, ScoredGraph, Tracks, TripletGraph
from trackserve.pipeline.embedding import embed
from trackserve.pipeline.features import canonical_order, hit_features
from trackserve.pipeline.filter import filter_logits, keep_edges, least_logit
from trackserve.pipeline.gnn import score_edges
from trackserve.pipeline.neighbours import neighbours
from trackserve.pipeline.networks import load_network
from trackserve.pipeline.tracks import find_tracks as tracks_of
from trackserve.pipeline.triplets import join_edges, keep_triplets, triplet_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

    from trackserve.bundle import Bundle


@dataclass(frozen=True, eq=False)
class StageOutputs:
    """What each stage gave for one event; hits are in canonical order.

    ``order`` ``[N]`` holds the input row of each canonical row, ``embedding`` is ``[N, D]``;
    ``candidates`` are the neighbours, ``filtered`` those that passed the filter, ``joined`` those of
    them that are in a triplet, with the triplets, or ``filtered`` for a bundle without that network.
    """

    order: Int64
    embedding: Float32
    candidates: Graph
    filtered: Graph
    joined: Graph
    scored: ScoredGraph
    tracks: Tracks

    def labels(self) -> Int64:
        """Return the track of each hit ``[N]`` in the order of the input."""
        labels = np.empty_like(self.tracks.labels)
        labels[self.order] = self.tracks.labels
        return labels


Told = Callable[[str, float, int | None], None]
"""Takes a stage's name, the seconds that it took, and the number of edges that it gave, or None."""


class Laps:
    """Tells how long each stage took; counts from when it is made."""

    def __init__(self, told: Told | None) -> None:
        self._told, self._since = told, time.perf_counter()

    def __call__(self, stage: str, edges: int | None = None) -> None:
        """Tell that a stage is done."""
        since, self._since = self._since, time.perf_counter()
        if self._told is not None:
            self._told(stage, self._since - since, edges)


class Pipeline:
    """A bundle made ready to find tracks, in this process.

    It holds no state between events, so one pipeline serves any number of them. ``threads`` is the
    number of processor threads that the networks and the neighbour search use. ``told``, if there is
    one, is called when a stage has done an event.
    """

    told: Told | None = None

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self.threads = threads
        self._embedding = load_network(bundle.embedding_path, threads)
        self._filter = load_network(bundle.filter_path, threads)
        self._triplets = load_network(bundle.triplets_path, threads) if bundle.triplets else None
        self._gnn = load_network(bundle.gnn_path, threads)

    def find_tracks(self, hits: HitsLike, *, parameters: bool = False) -> Tracks:
        """Return the tracks of an event, with what is fitted of each where ``parameters`` are wanted.

        ``hits`` are ``Hits``, or what :func:`trackserve.columns.as_hits` takes.
        Raises :class:`InputError` for parameters where the bundle has no fit.
        """
        features = hit_features(as_hits(hits), self.bundle.features)
        return self.find_tracks_from_features(features, parameters=parameters)

    def find_tracks_from_features(self, features: Float32, *, parameters: bool = False) -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``."""
        found = self.run(features, parameters=parameters)
        return Tracks(found.labels(), found.tracks.parameters)

    def find_tracks_of_events(
        self, events: Sequence[Float32], *, parameters: bool = False
    ) -> list[Tracks]:
        """Return the tracks of each of several events, given by their scaled features."""
        return [self.find_tracks_from_features(each, parameters=parameters) for each in events]

    def run(self, features: Float32, *, parameters: bool = False) -> StageOutputs:
        """Run every stage on scaled features ``[N, F]`` and return what each gave."""
        bundle, done = self.bundle, Laps(self.told)
        bundle.check_features(features)
        order = canonical_order(features, bundle.features)
        features = features[order]
        done("order")
        embedding = embed(self._embedding, features)
        done("embedding")
        candidates = neighbours(
            embedding,
            features,
            bundle.features,
            radius=bundle.radius,
            limit=bundle.neighbour_limit,
            cuts=bundle.doublet_cuts,
            threads=self.threads,
        )
        done("neighbours", candidates.edges.shape[1])
        logits = filter_logits(self._filter, candidates)
        done("filter")
        filtered = keep_edges(candidates, logits, bundle.filter_cut)
        done("cut", filtered.edges.shape[1])
        joined = filtered
        if self._triplets is not None:
            joined = keep_joined(self._triplets, filtered, bundle)
        done("triplets", joined.edges.shape[1])
        scored = score_edges(self._gnn, joined)
        done("gnn")
        tracks = tracks_of(scored, bundle.track_stage, parameters=parameters)
        done("tracks")
        return StageOutputs(order, embedding, candidates, filtered, joined, scored, tracks)


def keep_joined(
    network: onnxruntime.InferenceSession, graph: Graph, bundle: Bundle
) -> TripletGraph:
    """Return the triplets of a graph that the bundle's cuts and its network leave."""
    assert bundle.triplets is not None, "this bundle has no triplets"
    triplets = join_edges(graph, bundle.features, bundle.triplets.cuts)
    logits = triplet_logits(network, graph, triplets)
    least, chain = least_logit(bundle.triplets.cut), bundle.triplets.chain
    return keep_triplets(graph, triplets, logits, least, chain)
