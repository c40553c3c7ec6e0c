"""Extend tracks beyond their ends: take hits that are on no track where a track goes on.

An edge that no stage could see ends a track too early: a long step in the outer layers, or one of a
particle that turns. The fit of a track says where it goes on, and how sure that is. A hit is taken
where it is likelier to belong to the track than to lie there by chance.

    T  tracks, outwards along the hits of each        K  candidates: a track and a hit
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import NO_TRACK, Int64
from trackserve.pipeline.circle import circles
from trackserve.pipeline.fit import FEWEST_HITS, fit_tracks
from trackserve.pipeline.joining import Pieces

if TYPE_CHECKING:
    from trackserve.event import Float64
    from trackserve.pipeline.fit import FitSettings, Points

STEP = 20.0
"""A track is followed in steps of this length, mm; hits within as much of a step's end are looked at."""
STEPS = 30
"""How many steps a track is followed beyond its end."""
CELL = 40.0
"""Hits are looked up in cubes of this size, mm."""
MOST_IN_CELLS = 60
"""Hits of neighbouring cubes along z that are looked at for a step: bounds the work of an event."""
FARTHEST_CELL = 2**19 - 2
"""Along each axis; what lies farther out counts as there."""
NEAR_U = (3.0, 0.03)
"""How far a hit may lie from where the track goes on: across, mm, and per mm of the gap."""
NEAR_Z = (10.0, 0.05)
"""The same along z."""
MOST_TRIED = 60
"""Hits near where a track goes on that are tried, those next to its end: bounds the work, too."""
ROUNDS = 6
"""A track takes at most one hit at an end in each round."""
TRACKS_AT_ONCE = 4096
"""Tracks followed in one go, to bound memory."""


def extend_tracks(points: Points, labels: Int64, chance: float, settings: FitSettings) -> Int64:
    """Return the labels ``[N]`` after tracks took hits beyond their ends; the tracks keep their numbers.

    A hit at radius r is taken where the fit's likelihood with it is that of a hit spread over less
    than ``chance`` r^2. In each round a track chooses its best hit, and a hit the best of the tracks
    that chose it.
    """
    labels = labels.copy()
    cells = _Cells(points, np.flatnonzero(labels == NO_TRACK))
    with np.errstate(divide="ignore"):  # none is taken on the beam line itself
        most = 4 * np.log(np.sqrt(points.x**2 + points.y**2)) + 2 * np.log(chance)
    for outwards in (True, False):
        going = np.arange(labels.max(initial=NO_TRACK) + 1)
        for _ in range(ROUNDS):
            track, hit, rise = _candidates(
                points, labels, going, cells, settings, outwards=outwards
            )
            rise -= most[hit]
            likely = rise < 0
            track, hit, rise = track[likely], hit[likely], rise[likely]
            best = _first_of_each(track, np.lexsort((hit, rise, track)))
            track, hit, rise = track[best], hit[best], rise[best]
            going = track
            taken = _first_of_each(hit, np.lexsort((track, rise, hit)))
            labels[hit[taken]] = track[taken]
            if not len(taken):
                break
    return labels


def _first_of_each(key: Int64, order: Int64) -> Int64:
    """Return, of each key ``[K]``, the place that comes first in ``order``."""
    key = key[order]
    return order[np.flatnonzero(np.diff(key, prepend=-1))]


def _candidates(
    points: Points,
    labels: Int64,
    going: Int64,
    cells: _Cells,
    settings: FitSettings,
    *,
    outwards: bool,
) -> tuple[Int64, Int64, Float64]:
    """Return tracks and hits near where they go on ``[K]``, and by how much each hit raises the deviance."""
    pieces = Pieces.of(labels)
    going = going[np.diff(pieces.begin)[going] >= FEWEST_HITS]
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for begin in range(0, len(going), TRACKS_AT_ONCE):
        tracks = going[begin : begin + TRACKS_AT_ONCE]
        ends = _Ends(points, pieces.take(tracks), settings, outwards=outwards)
        row, hit = cells.around(*ends.steps())
        free = labels[hit] == NO_TRACK
        row, hit = ends.near(row[free], hit[free])
        found.append((tracks[row], hit, ends.rise(row, hit)))
    track, hit, rise = (np.concatenate(each) for each in zip(*found, strict=True))
    return track, hit, rise


class _Cells:
    """Where the hits on no track lie, in cubes."""

    def __init__(self, points: Points, free: Int64) -> None:
        self._points = points
        key = _key(*(_cell(axis[free]) for axis in (points.x, points.y, points.z)))
        order = np.argsort(key, kind="stable")
        self._hits, self._keys = free[order], key[order]

    def around(self, track: Int64, at: tuple[Float64, Float64, Float64]) -> tuple[Int64, Int64]:
        """Return each track's hits in the cubes within STEP of these places ``[K]``."""
        low, high = ([_cell(axis + to) for axis in at] for to in (-STEP, STEP))
        across = [(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])]
        begin = np.searchsorted(self._keys, [_key(*each, low[2]) for each in across]).ravel()
        last = [_key(*each, high[2]) for each in across]
        end = np.searchsorted(self._keys, last, side="right").ravel()
        many = np.minimum(end - begin, MOST_IN_CELLS)
        which = np.repeat(np.arange(len(begin)), many)
        place = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many)
        hit, step = self._hits[begin[which] + place], which % len(track)
        points = (self._points.x, self._points.y, self._points.z)
        squared = [(points[i][hit] - at[i][step]) ** 2 for i in range(3)]
        near = squared[0] + squared[1] + squared[2] < STEP * STEP
        track, hit = np.unique(np.stack([track[step[near]], hit[near]]), axis=1)
        return track, hit


def _cell(x: Float64) -> Int64:
    """Return the cell of each coordinate (mm)."""
    cell = np.clip(np.floor(np.nan_to_num(x) / CELL), -FARTHEST_CELL, FARTHEST_CELL)
    from_zero: Int64 = cell.astype(np.int64) + (FARTHEST_CELL + 2)
    return from_zero


def _key(x: Int64, y: Int64, z: Int64) -> Int64:
    """Return one number for a cell; those along z follow each other."""
    key: Int64 = (x << 40) + (y << 20) + z
    return key


class _Ends:
    """The ends of tracks, and how they go on from there."""

    def __init__(
        self, points: Points, pieces: Pieces, settings: FitSettings, *, outwards: bool
    ) -> None:
        self._points, self._pieces, self._settings = points, pieces, settings
        self._outwards = outwards
        of_pieces = points.take(pieces.rows)
        self._fits = fit_tracks(of_pieces, pieces.begin, settings)
        self._circle = circles(of_pieces, pieces.begin)
        self._end = pieces.rows[pieces.begin[1:] - 1 if outwards else pieces.begin[:-1]]
        every = np.arange(len(pieces))
        self._s = self._circle.project(every, points.x[self._end], points.y[self._end]).s

    def steps(self) -> tuple[Int64, tuple[Float64, Float64, Float64]]:
        """Return where tracks come on their way beyond the end: the track, and x, y, z (mm).

        Inwards no farther than where they come closest to the beam line.
        """
        every, zero = np.arange(len(self._end)), np.zeros(len(self._end))
        track = np.repeat(every, STEPS)
        along = STEP * (1.0 if self._outwards else -1.0) / np.sqrt(1 + self._fits.cot**2)
        gap = np.tile(np.arange(1, STEPS + 1), len(every)) * along[track]
        if not self._outwards:
            closest = self._circle.project(every, zero, zero).s - self._s
            before = gap > closest[track]
            track, gap = track[before], gap[before]
        x, y = self._circle.at(track, self._s[track] + gap)
        z = self._points.z[self._end[track]] + self._fits.cot[track] * gap
        return track, (x, y, z)

    def near(self, track: Int64, hit: Int64) -> tuple[Int64, Int64]:
        """Return those candidates, sorted, that lie beyond the end, near where the track goes on."""
        end = self._end[track]
        beyond = hit > end if self._outwards else hit < end
        track, hit, end = track[beyond], hit[beyond], end[beyond]
        at = self._circle.project(track, self._points.x[hit], self._points.y[hit])
        gap = at.s - self._s[track]
        z = self._points.z[end] + self._fits.cot[track] * gap - self._points.z[hit]
        length = np.abs(gap) * np.sqrt(1 + self._fits.cot[track] ** 2)
        near = np.abs(at.u) < NEAR_U[0] + NEAR_U[1] * length
        near &= np.abs(z) < NEAR_Z[0] + NEAR_Z[1] * length
        track, hit = track[near], hit[near]
        begin = np.searchsorted(track, track)
        place = np.arange(len(track)) - begin
        if not self._outwards:
            place = np.searchsorted(track, track, side="right") - begin - 1 - place
        tried = place < MOST_TRIED
        return track[tried], hit[tried]

    def rise(self, track: Int64, hit: Int64) -> Float64:
        """Return by how much each candidate raises the deviance of its track."""
        one, track_hits = Pieces(hit, np.arange(len(hit) + 1)), self._pieces.take(track)
        together = track_hits.and_then(one) if self._outwards else one.and_then(track_hits)
        fits = fit_tracks(self._points.take(together.rows), together.begin, self._settings)
        return fits.deviance - self._fits.deviance[track]
