"""Join the pieces of one track: across a hole, or where an edge was lost, by comparing their fits.

A piece ends where a hit is missing or an edge was cut. Two pieces are one track when one helix fits
the hits of both hardly worse than each piece is fitted by its own.

    T  pieces, outwards along the hits of each        K  candidate pairs of them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import NO_TRACK, Int64
from trackserve.pipeline.circle import circles
from trackserve.pipeline.fit import Fits, Points, fit_tracks

if TYPE_CHECKING:
    from trackserve.pipeline.fit import FitSettings

SHORTEST_PIECE = 2
"""Hits of a piece that may be joined to another."""
FEWEST_TOGETHER = 5
"""Hits that two pieces must have: with fewer, a helix fits almost any."""
NEAR_COT = 0.1
"""Largest difference of cot between two pieces, over the length of a step in units of its arc."""
NEAR_Z = (10.0, 0.2)
"""Where the inner piece may miss the outer one in z: mm, and per mm of the gap."""
NEAR_U = (10.0, 0.2)
"""The same across, for at least one of the two circles."""
NEAR_DIRECTION = 0.54
"""Least cosine of the angle between the end of the inner and the start of the outer piece."""
MOST_NEAR = 300
"""Pieces of higher cot that one is compared with, the nearest: bounds the work of an event."""
PIECES_AT_ONCE = 4096
"""Pieces compared in one go, to bound memory."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces as lists of hits: piece t has the hits ``rows[begin[t]:begin[t + 1]]``, outwards."""

    rows: Int64
    begin: Int64

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.begin) - 1

    @classmethod
    def of(cls, labels: Int64) -> Pieces:
        """Return the pieces of labels ``[N]`` that number them without gaps; -1 is on none."""
        rows = np.flatnonzero(labels > NO_TRACK)
        rows = rows[np.argsort(labels[rows], kind="stable")]
        return cls(
            rows, np.concatenate([[0], np.cumsum(np.bincount(labels[rows]))]).astype(np.int64)
        )

    def take(self, pieces: Int64) -> Pieces:
        """Return these pieces."""
        begin, hits = self.begin[pieces], self.begin[pieces + 1] - self.begin[pieces]
        ends = np.cumsum(hits)
        place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - hits, hits)
        rows = self.rows[np.repeat(begin, hits) + place]
        return Pieces(rows, np.concatenate([[0], ends]).astype(np.int64))

    def and_then(self, outer: Pieces) -> Pieces:
        """Return each piece with the hits of its fellow in ``outer`` after its own."""
        inner_hits, outer_hits = np.diff(self.begin), np.diff(outer.begin)
        begin = self.begin + outer.begin
        rows = np.empty(begin[-1], np.int64)
        rows[np.arange(len(self.rows)) + np.repeat(outer.begin[:-1], inner_hits)] = self.rows
        rows[np.arange(len(outer.rows)) + np.repeat(self.begin[1:], outer_hits)] = outer.rows
        return Pieces(rows, begin)


def join_pieces(points: Points, labels: Int64, most_chi2: float, settings: FitSettings) -> Int64:
    """Return the labels ``[N]`` after pieces of one track are joined; numbered by the innermost hit.

    ``labels`` number pieces of at least two hits. Of all pairs that raise chi2 by less than
    ``most_chi2`` the best is joined first; a piece is continued by one other, and continues one.
    """
    pieces = Pieces.of(labels)
    if len(pieces) < 2:
        return labels
    alone = fit_tracks(points.take(pieces.rows), pieces.begin, settings)
    inner, outer = candidate_pairs(points, pieces, alone)
    pairs = pieces.take(inner).and_then(pieces.take(outer))
    together = fit_tracks(points.take(pairs.rows), pairs.begin, settings)
    rise = together.chi2 - alone.chi2[inner] - alone.chi2[outer]
    near = rise < most_chi2
    inner, outer, rise = inner[near], outer[near], rise[near]
    root = list(range(len(pieces)))
    continued: set[int] = set()
    before: dict[int, int] = {}
    for pair in np.lexsort((outer, inner, rise)).tolist():
        one, other = int(inner[pair]), int(outer[pair])
        if one not in continued and other not in before:
            continued.add(one)
            before[other] = one
    for other in sorted(before):  # a piece begins further in than what continues it
        root[other] = root[before[other]]
    _, number = np.unique(root, return_inverse=True)
    return np.where(labels > NO_TRACK, number[labels], NO_TRACK)


def candidate_pairs(points: Points, pieces: Pieces, fits: Fits) -> tuple[Int64, Int64]:
    """Return the inner and the outer piece of each pair ``[K]`` that may be one track."""
    ends = _Ends(points, pieces, fits)
    by_cot = np.argsort(fits.cot, kind="stable")
    cot = fits.cot[by_cot]
    upto = np.searchsorted(cot, cot + NEAR_COT * np.sqrt(1 + cot * cot), side="right")
    many = np.minimum(upto - np.arange(len(cot)) - 1, MOST_NEAR)
    found = [np.empty((2, 0), np.int64)]
    for begin in range(0, len(cot), PIECES_AT_ONCE):
        here = np.arange(begin, min(begin + PIECES_AT_ONCE, len(cot)))
        one = np.repeat(here, many[here])
        before = np.cumsum(many[here]) - many[here]
        other = one + 1 + np.arange(len(one)) - np.repeat(before, many[here])
        found.append(np.stack(ends.near(by_cot[one], by_cot[other])))
    inner, outer = np.concatenate(found, axis=1)
    return inner, outer


class _Ends:
    """Where pieces begin and end, and how they go on from there."""

    def __init__(self, points: Points, pieces: Pieces, fits: Fits) -> None:
        self._points, self._fits = points, fits
        self._hits = np.diff(pieces.begin)
        self._first, self._last = pieces.rows[pieces.begin[:-1]], pieces.rows[pieces.begin[1:] - 1]
        self._circle = circles(points.take(pieces.rows), pieces.begin)
        end = np.arange(len(pieces)), points.x[self._last], points.y[self._last]
        self._end = self._circle.project(*end)

    def near(self, one: Int64, other: Int64) -> tuple[Int64, Int64]:
        """Return the inner and the outer piece of those pairs that roughly continue each other."""
        points, first, last, hits = self._points, self._first, self._last, self._hits
        swapped = first[one] > first[other]
        inner, outer = np.where(swapped, other, one), np.where(swapped, one, other)
        ordered = (last[inner] < first[outer]) & (hits[inner] + hits[outer] >= FEWEST_TOGETHER)
        inner, outer = inner[ordered], outer[ordered]
        start, end = first[outer], last[inner]
        dx, dy = points.x[start] - points.x[end], points.y[start] - points.y[end]
        gap = np.sqrt(dx * dx + dy * dy)
        cos, sin, phi = self._end.cos[inner], self._end.sin[inner], self._circle.phi[outer]
        z = np.abs(points.z[end] + self._fits.cot[inner] * gap - points.z[start])
        u = np.minimum(
            np.abs(self._circle.offset(inner, points.x[start], points.y[start])[0]),
            np.abs(self._circle.offset(outer, points.x[end], points.y[end])[0]),
        )
        near = (dx * cos + dy * sin > 0) & (np.cos(phi) * cos + np.sin(phi) * sin > NEAR_DIRECTION)
        near &= (z < NEAR_Z[0] + NEAR_Z[1] * gap) & (u < NEAR_U[0] + NEAR_U[1] * gap)
        return inner[near], outer[near]
