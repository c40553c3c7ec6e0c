"""Algorithm 3: from scored edges to track candidates, by connected components or by cut-and-walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trackserve.errors import BundleError
from trackserve.event import NO_TRACK, Float32, Int64, ScoredGraph, Tracks


@dataclass(frozen=True)
class TrackBuilder:
    """How tracks are built from a scored graph.

    ``method`` is ``components`` (every set of hits connected by edges that pass ``cut`` is a track)
    or ``walk`` (of the edges that pass, the best are taken first, and at most one inwards and one
    outwards of each hit, so that tracks can't merge). Candidates below ``min_hits`` hits are dropped.

    Three more steps need the fit (:mod:`trackserve.pipeline.tracks`): candidates are joined where one
    helix fits both with a chi2 that is larger by less than ``join``, what then has a quality below
    ``min_quality`` is dropped, and the others take hits beyond their ends that would lie there by chance
    in fewer than ``extend`` cases or so. Each is left out at 0.
    """

    method: Literal["components", "walk"]
    cut: float
    min_hits: int = 3
    join: float = 0.0
    min_quality: float = 0.0
    extend: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in {"components", "walk"}:
            message = f"track builder {self.method!r} is unknown; known are components and walk"
            raise BundleError(message)
        if not 0 <= self.cut <= 1 or self.min_hits < 1:
            message = f"track builder has cut {self.cut} and min_hits {self.min_hits}; expected a score in [0, 1] and at least 1"
            raise BundleError(message)
        if not 0 <= self.join < np.inf or not 0 <= self.min_quality < 1:
            message = f"track builder has join {self.join} and min_quality {self.min_quality}; expected a chi2 and a number in [0, 1)"
            raise BundleError(message)
        if not 0 <= self.extend < 1:
            message = f"track builder has extend {self.extend}; expected a number in [0, 1)"
            raise BundleError(message)

    @property
    def fits(self) -> bool:
        """Whether tracks are built with the help of the fit."""
        return max(self.join, self.min_quality, self.extend) > 0


def build_tracks(graph: ScoredGraph, builder: TrackBuilder) -> Tracks:
    """Return the tracks of a scored graph before any fit, numbered by their innermost hit."""
    edges = graph.edges[:, taken_edges(graph, builder)]
    return connected(edges, hits=len(graph.features), min_hits=builder.min_hits)


def taken_edges(graph: ScoredGraph, builder: TrackBuilder) -> Int64:
    """Return the rows of the edges that tracks are made of."""
    passed = np.flatnonzero(graph.scores >= np.float32(builder.cut))
    if builder.method == "walk":
        passed = passed[best_steps(graph.edges[:, passed], graph.scores[passed])]
    return passed


def best_steps(edges: Int64, scores: Float32) -> Int64:
    """Return the edges that are taken when each hit may have one step inwards and one outwards.

    ``edges`` ``[2, E]`` are sorted. The best edge is taken first, then the best of those whose inner
    hit has no step outwards yet and whose outer hit has none inwards, and so on; of equal scores the
    first edge wins. What is taken are paths.
    """
    inner, outer = edges.tolist()
    left: set[int] = set()
    reached: set[int] = set()
    taken = []
    for edge in np.argsort(-scores, kind="stable").tolist():
        if inner[edge] not in left and outer[edge] not in reached:
            left.add(inner[edge])
            reached.add(outer[edge])
            taken.append(edge)
    return np.sort(np.array(taken, np.int64))


def connected(edges: Int64, *, hits: int, min_hits: int) -> Tracks:
    """Label the connected sets of at least ``min_hits`` hits by their lowest hit."""
    # Half of what a server's start would take: most engines connect hits themselves.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

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
