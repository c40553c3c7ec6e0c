"""The functions of the compiled library on numpy arrays."""

from __future__ import annotations

import math
from ctypes import byref, c_double, c_float, c_int64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.contract.description import PRECISIONS
from trackserve.engines.native.abi import (
    STAGES,
    EventBudget,
    Memory,
    NetworkInput,
    load,
    path_of,
    variants,
)
from trackserve.engines.native.arrays import BorrowedBuffer, pointer
from trackserve.errors import MissingDependencyError
from trackserve.event import Int32
from trackserve.pipeline.timings import EDGE_STAGES
from trackserve.track_table import TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.engines.native.abi import Description, PipelineConfig
    from trackserve.engines.native.fitting import Fitting
    from trackserve.event import Float32, Int64

Pairs = tuple[Int32, Int32]
"""Edges as rows of inner and of outer hits ``[E]``, triplets as rows of edges ``[T]``."""


KEPT_BYTES = 64 << 10
"""The library keeps no smaller blocks of memory."""
OVER = {3: "edges", 4: "triplets", 5: "seconds"}
"""The bound of an event's budget that each status means."""


class OverBudgetError(Exception):
    """An event exceeded this bound of its budget; see :meth:`trackserve.pipeline.budget.Limits.over`."""

    def __init__(self, bound: str) -> None:
        super().__init__(bound)
        self.bound = bound


@cache
def library(variant: str | None = None) -> Library:
    """Load a variant, the fastest that this processor runs if none is named.

    Raises :class:`MissingDependencyError` where none is installed, :class:`StaleLibraryError` for one
    that does not fit.
    """
    found = variants()
    if not found or (variant is not None and variant not in found):
        wanted = "the native engine" if variant is None else f"the native engine for {variant}"
        message = (
            f"{wanted} is not installed or not for this processor (there is: "
            f"{', '.join(found) or 'none'}); install trackserve where a C++20 compiler is present, or "
            'use engine "reference"'
        )
        raise MissingDependencyError(message)
    return Library(variant or found[-1])


class Library:
    """One variant's functions, on numpy arrays; calls leave other Python threads running.

    Arrays are C-contiguous; edges are two int32 arrays, the rows of inner and of outer hits.
    """

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._functions = load(path_of(variant))

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._functions, f"trackserve_{function}")(*arguments)
        if status == 1:
            message = f"the native engine ran out of memory in {function}"
            raise MemoryError(message)
        if status in OVER:
            raise OverBudgetError(OVER[status])
        if status:
            message = f"the native engine failed in {function}"
            raise RuntimeError(message)

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions that this variant has instructions for.

        In int8 these are the hidden layers of the filter and of the triplet classifier.
        """
        has = self._functions.trackserve_has_precision
        return tuple(name for code, name in enumerate(PRECISIONS) if has(code))

    def nearest_precision(self, wanted: str) -> str:
        """Return what this variant computes in where this precision is wanted."""
        return wanted if wanted in self.precisions() else "float32"

    def canonical_order(self, features: Float32, distance: Float32) -> Int64:
        """Return the rows ``[N]`` by distance, then by the last, the last but one ... feature."""
        order = self._empty((len(features),), np.int64)
        self._call(
            "canonical_order",
            *(pointer(features), c_int64(len(features)), features.shape[1]),
            *(pointer(distance), pointer(order)),
        )
        return order

    def neighbours(
        self,
        embedding: Float32,
        position: tuple[Float32, Float32, Float32],
        *,
        squared_radius: float,
        limit: int,
        cuts: Sequence[float],
        radian: float = 0.0,
        budget: EventBudget | None = None,
        threads: int = 1,
    ) -> tuple[Int32, Pairs]:
        """Return hits in space order and edges as places in it, for hits in canonical order.

        In space order, rows ``[N]``, consecutive hits are close together in the embedding, and, if
        ``radian`` is not 0, in azimuth, where one counts as much. ``position`` is r, phi, z ``[N]``;
        ``cuts`` are slope, z0, dphi, dcot of the doublet cuts.
        """
        order = self._empty((len(embedding),), np.int32)
        edges, count = (Memory(), Memory()), c_int64()
        self._call(
            "neighbours",
            *(pointer(embedding), c_int64(len(embedding)), embedding.shape[1]),
            *map(pointer, position),
            *(c_double(squared_radius), limit),
            *(pointer(np.array(cuts, np.float32)), c_float(radian)),
            *(byref(budget or EventBudget.of(None)), threads),
            *(pointer(order), *map(byref, edges), byref(count)),
        )
        return order, self._taken(edges, count)

    def _empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """Return an array to be written; a large one in memory that is kept from one event to the next."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < KEPT_BYTES:
            return np.empty(shape, dtype)
        memory = Memory()
        self._call("take", c_int64(size), byref(memory))
        return self._borrowed(memory, shape, dtype)

    def _taken(self, rows: tuple[Memory, Memory], count: c_int64) -> Pairs:
        """Return two lists of rows that the library has made as arrays that look at them."""
        first, second = (self._borrowed(each, (count.value,), np.int32) for each in rows)
        return first, second

    def _borrowed(
        self, memory: Memory, shape: tuple[int, ...], dtype: type[np.generic]
    ) -> np.ndarray[Any, Any]:
        give_back = self._functions.trackserve_give_back
        return np.asarray(BorrowedBuffer(memory, shape, dtype, give_back))

    def keep_edges(
        self, logits: Float32, threshold: float, edges: Pairs, hits: int, *, threads: int = 1
    ) -> Pairs:
        """Return the edges whose logit reaches the threshold, sorted by their inner hit."""
        kept, count = (Memory(), Memory()), c_int64()
        self._call(
            "keep_edges",
            *(pointer(logits), c_float(threshold), c_int64(len(logits)), c_int64(hits)),
            *(*map(pointer, edges), threads, *map(byref, kept), byref(count)),
        )
        return self._taken(kept, count)

    def join_edges(
        self,
        position: tuple[Float32, Float32, Float32],
        edges: Pairs,
        *,
        cuts: Sequence[float],
        budget: EventBudget | None = None,
        threads: int,
    ) -> Pairs:
        """Return the triplets, sorted, of edges that are sorted by their inner hit.

        ``position`` is r, phi, z ``[N]``; ``cuts`` are kink, off, slope, dphi of the triplet cuts.
        """
        triplets, count = (Memory(), Memory()), c_int64()
        self._call(
            "join_edges",
            *(*map(pointer, position), c_int64(len(position[0]))),
            *(*map(pointer, edges), c_int64(len(edges[0]))),
            *(pointer(np.array(cuts, np.float32)), byref(budget or EventBudget.of(None)), threads),
            *(*map(byref, triplets), byref(count)),
        )
        return self._taken(triplets, count)

    def keep_chains(
        self, edges: Pairs, triplets: Pairs, chain: int, *, threads: int = 1
    ) -> tuple[Pairs, Pairs]:
        """Return the edges and the triplets that are part of a chain of this many edges."""
        of_edges, of_triplets = (Memory(), Memory()), (Memory(), Memory())
        kept_edges, kept_triplets = c_int64(), c_int64()
        self._call(
            "keep_chains",
            *(chain, c_int64(len(triplets[0])), *map(pointer, triplets)),
            *(c_int64(len(edges[0])), *map(pointer, edges), threads),
            *(*map(byref, of_edges), byref(kept_edges)),
            *(*map(byref, of_triplets), byref(kept_triplets)),
        )
        return self._taken(of_edges, kept_edges), self._taken(of_triplets, kept_triplets)

    def build_tracks(
        self,
        hits: int,
        inner: Int32,
        outer: Int32,
        scores: Float32,
        *,
        cut: float,
        walk: bool,
        min_hits: int,
    ) -> Int64:
        """Return the track of each hit ``[N]``; edges and hits are in canonical rows."""
        labels = np.empty(hits, np.int64)
        self._call(
            "build_tracks",
            *(c_int64(hits), pointer(inner), pointer(outer), pointer(scores)),
            *(c_int64(len(scores)), c_float(cut), int(walk), c_int64(min_hits), pointer(labels)),
        )
        return labels

    def scores_of(self, logits: Float32) -> Float32:
        """Return the scores of logits ``[E]``."""
        scores = np.empty(len(logits), np.float32)
        self._call("scores_of", pointer(logits), c_int64(len(logits)), pointer(scores))
        return scores

    def fitted_tracks(
        self,
        fitting: Fitting,
        position: tuple[Float32, Float32, Float32],
        edges: Pairs,
        scores: Float32,
        *,
        cut: float,
        walk: bool,
        min_hits: int,
        parameters: bool,
    ) -> tuple[Int64, Float32 | None]:
        """Return the track of each hit ``[N]`` and, if wanted, the tracks' parameters ``[T, 14]``.

        ``position`` is r, phi, z ``[N]``; edges and hits are in canonical rows.
        """
        hits = len(position[0])
        labels, tracks = np.empty(hits, np.int64), c_int64()
        table = _room_for_tracks(hits, min_hits) if parameters else None
        self._call(
            "fitted_tracks",
            *(byref(fitting), c_int64(hits), *map(pointer, position), *map(pointer, edges)),
            *(pointer(scores), c_int64(len(scores)), c_float(cut), int(walk), c_int64(min_hits)),
            *(pointer(labels), None if table is None else pointer(table), byref(tracks)),
        )
        return labels, None if table is None else table[: tracks.value]

    def find_tracks(
        self,
        config: PipelineConfig,
        features: Float32,
        position: tuple[Float32, Float32, Float32],
        begins: Int64,
        budgets: Sequence[EventBudget],
        *,
        threads: int,
        parameters: bool = False,
    ) -> tuple[Int64, dict[str, float], list[dict[str, int]], list[Float32] | None]:
        """Return the track of each hit of some events, each stage's seconds, each event's edges by stage.

        ``position`` is r, phi, z ``[N]``; the hits of event i are the rows ``begins[i:i + 2]``, and its
        tracks are numbered from 0. Raises :class:`OverBudgetError` beyond one of the ``budgets``, one for
        each event. Last are the parameters ``[T, 14]`` of each event's tracks, if wanted.
        """
        labels, events = np.empty(len(features), np.int64), len(begins) - 1
        seconds, edges = np.empty(len(STAGES)), np.empty((events, len(STAGES)), np.int64)
        table = _room_for_tracks(len(features), config.min_hits) if parameters else None
        tracks = np.zeros(events, np.int64)
        self._call(
            "find_tracks",
            *(byref(config), pointer(features), *map(pointer, position), pointer(begins)),
            *(
                events,
                (EventBudget * events)(*budgets),
                threads,
                pointer(labels),
                pointer(seconds),
                pointer(edges),
            ),
            *(None if table is None else pointer(table), pointer(tracks)),
        )
        counts = [dict(zip(STAGES, row, strict=True)) for row in edges.tolist()]
        left = [{stage: count[stage] for stage in EDGE_STAGES} for count in counts]
        ends = np.cumsum(tracks)
        tables = None if table is None else np.split(table[: tracks.sum()], ends[:-1])
        return labels, dict(zip(STAGES, seconds.tolist(), strict=True)), left, tables

    def make_network(self, description: Description) -> c_void_p:
        """Return a network, to be freed with :meth:`free_network`."""
        network = c_void_p()
        self._call("make_network", byref(description), byref(network))
        return network

    def free_network(self, network: c_void_p) -> None:
        """Give a network's memory back."""
        self._functions.trackserve_free_network(network)

    def run_network(
        self,
        network: c_void_p,
        features: Float32,
        edges: Pairs | None,
        triplets: Pairs | None,
        *,
        shape: tuple[int, ...],
        threads: int,
    ) -> Float32:
        """Return the network's output, of this shape."""
        result = self._empty(shape, np.float32)
        graph = _graph(features, edges, triplets)
        self._call("run_network", network, byref(graph), pointer(result), threads)
        return result

    def find_triplets(
        self,
        network: c_void_p,
        features: Float32,
        edges: Pairs,
        position: tuple[Float32, Float32, Float32],
        *,
        cuts: Sequence[float],
        threshold: float,
        budget: EventBudget | None = None,
        threads: int,
    ) -> Pairs:
        """Return what :meth:`join_edges` gives where the network's logit reaches the threshold.

        The triplets are sorted by the hit in which their edges meet.
        """
        triplets, count = (Memory(), Memory()), c_int64()
        graph = _graph(features, edges)
        self._call(
            "find_triplets",
            *(network, byref(graph), *map(pointer, position)),
            *(pointer(np.array(cuts, np.float32)), c_float(threshold)),
            *(byref(budget or EventBudget.of(None)), threads),
            *(*map(byref, triplets), byref(count)),
        )
        return self._taken(triplets, count)


def _room_for_tracks(hits: int, min_hits: int) -> Float32:
    """Return an array for the parameters of as many tracks as hits may make."""
    return np.empty((hits // max(1, min_hits), len(TRACK_COLUMNS)), np.float32)


def _graph(features: Float32, edges: Pairs | None, triplets: Pairs | None = None) -> NetworkInput:
    graph = NetworkInput(pointer(features), len(features))
    if edges is not None:
        graph.inner, graph.outer, graph.edges = *map(pointer, edges), len(edges[0])
    if triplets is not None:
        graph.first, graph.second = map(pointer, triplets)
        graph.triplets = len(triplets[0])
    return graph
