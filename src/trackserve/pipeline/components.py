"""Algorithm 2: from scored edges to track candidates, by connected components or by cut-and-walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trackserve.errors import BundleError
from trackserve.event import NO_TRACK, Float32, Int64, ScoredGraph, Tracks


@dataclass(frozen=True)
class TrackBuilder:
    """How tracks are built from a scored graph.

    ``method`` is ``components`` (every set of hits connected by edges that pass ``cut`` is a track)
    or ``walk`` (of the edges that pass, each hit keeps its best one inwards and its best one
    outwards, so that tracks can't merge). Candidates below ``min_hits`` hits are dropped.
    """

    method: Literal["components", "walk"]
    cut: float
    min_hits: int = 3

    def __post_init__(self) -> None:
        if self.method not in {"components", "walk"}:
            message = f"track builder {self.method!r} is unknown; known are components and walk"
            raise BundleError(message)
        if not 0 <= self.cut <= 1 or self.min_hits < 1:
            message = f"track builder has cut {self.cut} and min_hits {self.min_hits}; expected a score in [0, 1] and at least 1"
            raise BundleError(message)


def build_tracks(graph: ScoredGraph, builder: TrackBuilder) -> Tracks:
    """Return the tracks of a scored graph, numbered by their innermost hit."""
    passed = graph.scores >= np.float32(builder.cut)
    edges = graph.edges[:, passed]
    if builder.method == "walk":
        edges = edges[:, mutual_best(edges, graph.scores[passed])]
    return _components(edges, hits=len(graph.features), min_hits=builder.min_hits)


def mutual_best(edges: Int64, scores: Float32) -> Int64:
    """Return the edges that are both the best way out of their inner hit and into their outer hit.

    ``edges`` ``[2, E]`` are sorted; of equal scores the first edge wins. What remains are paths: no
    hit has more than one neighbour on either side.
    """
    ranked = np.argsort(-scores, kind="stable")
    inner, outer = edges[:, ranked]
    best_out = np.zeros(len(ranked), np.bool_)
    best_in = np.zeros(len(ranked), np.bool_)
    best_out[np.unique(inner, return_index=True)[1]] = True
    best_in[np.unique(outer, return_index=True)[1]] = True
    return np.sort(ranked[best_out & best_in])


def _components(edges: Int64, *, hits: int, min_hits: int) -> Tracks:
    """Label the connected sets of at least ``min_hits`` hits by their lowest hit."""
    if hits == 0:
        return Tracks(np.empty(0, np.int64))
    adjacency = coo_array((np.ones(edges.shape[1], np.bool_), (edges[0], edges[1])), (hits, hits))
    _, component = connected_components(adjacency, directed=False)
    _, first_hit, inverse, size = np.unique(
        component, return_index=True, return_inverse=True, return_counts=True
    )
    kept = np.flatnonzero(size >= min_hits)
    number = np.full(len(size), NO_TRACK, np.int64)
    number[kept[np.argsort(first_hit[kept])]] = np.arange(len(kept))
    return Tracks(number[inverse])
