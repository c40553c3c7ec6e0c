"""What each stage passes to the next, event by event, kept on disk once it has been computed.

``[2, E]`` are edges, ``[2, T]`` triplets: pairs of edges that share a hit.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from trackserve.engines.native import stages as native
from trackserve.engines.native.library import library
from trackserve.errors import MissingDependencyError
from trackserve.event import Event, Graph, Int64, TripletGraph
from trackserve.files import whole
from trackserve.pipeline.embedding import embed
from trackserve.pipeline.features import canonical_order, hit_features
from trackserve.pipeline.filter import filter_logits, keep_edges, least_logit
from trackserve.pipeline.neighbours import neighbours
from trackserve.pipeline.networks import load_network
from trackserve.pipeline.triplets import join_edges, keep_triplets, triplet_logits
from trackserve.training.samples import Sample, make_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnxruntime import InferenceSession

    from trackserve.data.sources import EventSource
    from trackserve.training.recipe import Recipe
    from trackserve.training.working_folder import Chosen


class Graphs:
    """The graphs of events after each stage, by the networks in ``folder`` and the numbers chosen so far.

    A stage that isn't trained yet, or whose cut isn't chosen yet, can't be asked for.
    """

    def __init__(self, folder: Path, recipe: Recipe, chosen: Chosen, threads: int) -> None:
        self.recipe = recipe
        self.search = fastest_neighbours()
        """The neighbour search."""
        self._folder = folder
        self._chosen = chosen
        self._threads = threads
        self._samples: dict[str, Sample] = {}

    def sample(self, source: EventSource) -> Sample:
        """Return features and targets of an event, which stay in memory."""
        if source.prefix not in self._samples:
            self._samples[source.prefix] = make_sample(self.event(source), self.recipe)
        return self._samples[source.prefix]

    def event(self, source: EventSource) -> Event:
        """Read an event, with its truth."""
        return source.read_columns(self.recipe.features.wire_columns)

    def order(self, event: Event) -> Int64:
        """Return the order of the hits in samples and graphs, as indices of the event's hits ``[N]``."""
        columns = self.recipe.features
        return canonical_order(hit_features(event.hits, columns), columns)

    def network(self, name: str) -> InferenceSession:
        """Open a network that has been trained."""
        return load_network(self._folder / f"{name}.onnx", self._threads)

    def candidates(self, source: EventSource) -> Int64:
        """Return the edges between neighbours in the embedding ``[2, E]``."""

        def find() -> Int64:
            features = self.sample(source).features
            return self.search(
                embed(self.network("embedding"), features),
                features,
                self.recipe.features,
                radius=self._chosen["radius"],
                limit=self.recipe.embedding.neighbour_limit,
                cuts=self.recipe.doublet_cuts,
                threads=self._threads,
            ).edges

        return self._kept("candidates", source, find)

    def filtered(self, source: EventSource) -> Int64:
        """Return the edges that pass the filter ``[2, E]``."""

        def find() -> Int64:
            graph = Graph(self.sample(source).features, self.candidates(source))
            logits = filter_logits(self.network("filter"), graph)
            return keep_edges(graph, logits, self._chosen["filter_cut"]).edges

        return self._kept("filtered", source, find)

    def triplets(self, source: EventSource) -> tuple[Int64, Int64]:
        """Return the edges after the filter, and the triplets of them that pass the cuts ``[2, T]``."""
        edges = self.filtered(source)

        def find() -> Int64:
            graph = Graph(self.sample(source).features, edges)
            return join_edges(graph, self.recipe.features, self.recipe.triplet_cuts)

        return edges, self._kept("triplets", source, find)

    def joined(self, source: EventSource) -> tuple[Int64, Int64]:
        """Return the edges and triplets that pass the triplet classifier: what the GNN gets."""

        @cache
        def find() -> TripletGraph:
            edges, triplets = self.triplets(source)
            graph = Graph(self.sample(source).features, edges)
            logits = triplet_logits(self.network("triplets"), graph, triplets)
            least = least_logit(self._chosen["triplet_cut"])
            return keep_triplets(graph, triplets, logits, least, self.recipe.triplets.chain)

        edges = self._kept("joined_edges", source, lambda: find().edges)
        return edges, self._kept("joined_triplets", source, lambda: find().triplets)

    def mapped_candidates(self, source: EventSource) -> Int64:
        """Return :meth:`candidates` as a memory map, of which an update reads a few rows only."""
        return self._mapped(self.candidates, "candidates", source)

    def mapped_triplets(self, source: EventSource) -> tuple[Int64, Int64]:
        """Return :meth:`triplets`, the triplets as a memory map."""
        return self.filtered(source), self._mapped(self.triplets, "triplets", source)

    def _mapped(
        self, find: Callable[[EventSource], object], name: str, source: EventSource
    ) -> Int64:
        path = self._place(name, source)
        if not path.is_file():
            find(source)
        mapped: Int64 = np.load(path, mmap_mode="r")
        return mapped

    def _place(self, name: str, source: EventSource) -> Path:
        place = hashlib.sha256(source.prefix.encode()).hexdigest()[:16]
        return self._folder / name / f"{place}.npy"

    def _kept(self, name: str, source: EventSource, find: Callable[[], Int64]) -> Int64:
        """Return edges or triplets from the working folder, or find them and keep them there as int32."""
        path = self._place(name, source)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            with whole(path) as beside:
                np.save(beside, find().astype(np.int32))
        rows: Int64 = np.load(path).astype(np.int64)
        return rows


def fastest_neighbours() -> Callable[..., Graph]:
    """Return the native engine's neighbour search, or the reference's where it isn't installed.

    Both return the same edges.
    """
    try:
        return partial(native.neighbours, library=library())
    except MissingDependencyError:
        return neighbours
