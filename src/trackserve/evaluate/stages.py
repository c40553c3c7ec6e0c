"""How the graph fares from stage to stage: which true edges live on, and where particles are lost.

N   hits        P   particles        E   edges of a graph        M   true edges
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import NO_PARTICLE, Matches, particle_rows
from trackserve.event import NOISE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.event import Bool, Hits, Int64, Truth


def true_edges(hits: Hits, truth: Truth, particles: Bool) -> Int64:
    """Return the edges that a perfect graph would have for these ``particles`` ``[P]``.

    They join consecutive hits of a particle, ordered by distance from where it was produced, and
    point from the hit nearer to the origin to the farther one. Returns int64 ``[2, M]``.
    """
    owner = particle_rows(truth)
    rows = np.flatnonzero(owner != NO_PARTICLE)
    rows = rows[particles[owner[rows]]]
    position = np.stack([hits.x, hits.y, hits.z]).astype(np.float64)
    table = truth.particles
    vertex = np.stack([table.vx, table.vy, table.vz])[:, owner[rows]]
    travelled = np.linalg.norm(position[:, rows] - vertex, axis=0)
    rows = rows[np.lexsort((travelled, owner[rows]))]

    edges: Int64 = np.stack([rows[:-1], rows[1:]])
    edges = edges[:, owner[edges[0]] == owner[edges[1]]]
    radius = np.linalg.norm(position, axis=0)
    inwards = radius[edges[0]] > radius[edges[1]]
    edges[:, inwards] = edges[::-1, inwards]
    return edges


def same_particle(edges: Int64, truth: Truth) -> Int64:
    """Return those of the ``edges`` ``[2, E]`` that join two hits of one particle."""
    inner, outer = truth.particle_id[edges]
    return edges[:, (inner == outer) & (inner != NOISE)]


@dataclass(frozen=True)
class EdgeCounts:
    """What a stage's edges are worth; adding pools events.

    ``efficiency`` is the share of the targets' true edges that are there, ``purity`` the share of
    edges that join two hits of one particle (any particle), ``target_purity`` the share of edges
    that are true edges of targets.
    """

    efficiency: Ratio
    purity: Ratio
    target_purity: Ratio

    def __add__(self, other: EdgeCounts) -> EdgeCounts:
        return EdgeCounts(
            self.efficiency + other.efficiency,
            self.purity + other.purity,
            self.target_purity + other.target_purity,
        )

    @property
    def edges(self) -> int:
        """The number of edges, over all events."""
        return self.purity.total

    @classmethod
    def count(cls, edges: Int64, truth: Truth, wanted: Int64) -> EdgeCounts:
        """Judge ``edges`` ``[2, E]`` by the true edges that are ``wanted`` ``[2, M]``.

        The direction of an edge does not matter.
        """
        present = _undirected(same_particle(edges, truth), len(truth))
        goal = _undirected(wanted, len(truth))
        total = edges.shape[1]
        return cls(
            efficiency=Ratio(int(np.isin(goal, present).sum()), len(goal)),
            purity=Ratio(len(present), total),
            target_purity=Ratio(int(np.isin(present, goal).sum()), total),
        )

    def to_json(self, events: int) -> dict[str, Any]:
        """Return every number, the edges as a mean over ``events``."""
        return {
            "edges_per_event": self.edges / events,
            "efficiency": self.efficiency.to_json(),
            "purity": self.purity.to_json(),
            "target_purity": self.target_purity.to_json(),
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> EdgeCounts:
        """Return the counts that :meth:`to_json` wrote."""
        return cls(
            *(Ratio.from_json(written[name]) for name in ("efficiency", "purity", "target_purity"))
        )


def _undirected(edges: Int64, hits: int) -> Int64:
    """Name each edge by one number that does not depend on its direction."""
    names: Int64 = edges.min(axis=0) * hits + edges.max(axis=0)
    return names


def losses(
    matches: Matches, truth: Truth, targets: Bool, stages: Mapping[str, Int64]
) -> dict[str, int]:
    """Return what the ``targets`` ``[P]`` without a double-majority match died of, and how many.

    ``stages`` names the edges ``[2, E]`` that were left after each stage, in their order. Each lost
    target is counted once, at the first of these that is true:

    - ``no_edge``: after the first stage (neighbours) no set of its hits that hang together by edges
      between them holds more than half of them, so no later stage could have matched it;
    - ``cut_by_<stage>``: the same after a later stage;
    - ``split``: no track holds more than half of its hits;
    - ``merged``: a track does, but half or more of that track's hits come from elsewhere.
    """
    lost = targets & ~matches.particle_matched
    died: dict[str, int] = {}
    for place, (stage, edges) in enumerate(stages.items()):
        cut = lost & (2 * _largest_piece(edges, truth, lost) <= matches.particle_hits)
        died[f"cut_by_{stage}" if place else "no_edge"] = int(cut.sum())
        lost = lost & ~cut
    whole = 2 * matches.particle_shared > matches.particle_hits
    died["split"] = int((lost & ~whole).sum())
    died["merged"] = int((lost & whole).sum())
    return died


def _largest_piece(edges: Int64, truth: Truth, particles: Bool) -> Int64:
    """Count the hits of the largest piece of each of these particles ``[P]``, by its own edges.

    What it gives for other particles means nothing.
    """
    owner = particle_rows(truth)
    own = same_particle(edges, truth)
    inner, outer = own[:, particles[owner[own[0]]]]
    piece = np.arange(len(owner))
    while True:  # every hit takes the lowest number it is connected to, until none changes
        lowest = np.minimum(piece[inner], piece[outer])
        if (lowest == piece[inner]).all() and (lowest == piece[outer]).all():
            break
        np.minimum.at(piece, inner, lowest)
        np.minimum.at(piece, outer, lowest)
    rows = np.flatnonzero(owner != NO_PARTICLE)
    names, size = np.unique(piece[rows], return_counts=True)
    largest = np.zeros(len(particles), np.int64)
    np.maximum.at(largest, owner[names], size)
    return largest
