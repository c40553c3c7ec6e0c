"""Extend tracks beyond their ends on the device, as pipeline/extending.py; shapes and names are as there.

Events are worked on together: hits are looked up by their event and their cell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.fit import circles, fit_tracks
from trackserve.engines.gpu.joining import Pieces
from trackserve.event import NO_TRACK
from trackserve.pipeline.extending import (
    CELL,
    FARTHEST_CELL,
    MOST_IN_CELLS,
    MOST_TRIED,
    NEAR_U,
    NEAR_Z,
    ROUNDS,
    STEP,
    STEPS,
    TRACKS_AT_ONCE,
)
from trackserve.pipeline.fit import FEWEST_HITS

if TYPE_CHECKING:
    from trackserve.engines.gpu.fit import Detector, Points
    from trackserve.engines.gpu.lists import Room

LOOKED_AT_BYTES = 256
"""Bytes that a hit near where a track goes on takes while it is looked at."""
FITTED = "hits of tracks that may go on"
"""What is fitted, in a message."""


def extend_tracks(
    points: Points, labels: Tensor, event: Tensor, *, chance: float, detector: Detector, room: Room
) -> Tensor:
    """Return the labels ``[N]`` after tracks took hits of their event beyond their ends; they keep their numbers.

    ``event`` ``[N]`` is the event of each hit. Raises :class:`InputError` where there are too many
    hits to look at or to fit.
    """
    most = 4 * torch.log(torch.sqrt(points.x**2 + points.y**2)) + 2 * math.log(chance)
    search = _Search(points, labels, event, detector, room)
    for outwards in (True, False):
        going = torch.unique(labels[labels > NO_TRACK])
        for _ in range(ROUNDS):
            track, hit, rise = search.candidates(labels, going, outwards=outwards)
            rise = rise - most[hit]
            likely = rise < 0
            track, hit, rise = track[likely], hit[likely], rise[likely]
            best = _best_of_each(track, rise)
            track, hit, rise = track[best], hit[best], rise[best]
            going = track
            if not len(going):
                break
            taken = _best_of_each(hit, rise)
            labels = labels.index_copy(0, hit[taken], track[taken])
    return labels


def _best_of_each(key: Tensor, rise: Tensor) -> Tensor:
    """Return, of each key ``[K]``, the place of the least rise, by key; of equal ones the first."""
    order = torch.sort(rise, stable=True).indices
    by_key = torch.sort(key[order], stable=True)
    first = by_key.values.diff(prepend=key.new_full((1,), -1)) != 0
    return order[by_key.indices[first]]


class _Search:
    """Looks for hits on no track, near where tracks go on."""

    def __init__(
        self, points: Points, labels: Tensor, event: Tensor, detector: Detector, room: Room
    ) -> None:
        self._points, self._event, self._detector, self._room = points, event, detector, room
        self._cells = _Cells(points, event, torch.nonzero(labels == NO_TRACK).flatten())

    def candidates(
        self, labels: Tensor, going: Tensor, *, outwards: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return tracks, hits near where they go on, and by how much each raises the deviance ``[K]``.

        ``going`` are the tracks to look at, sorted; what is found is sorted by track, then by hit.
        """
        pieces = Pieces.of(labels)
        going = going[pieces.begin.diff()[going] >= FEWEST_HITS]
        none = labels.new_empty(0)
        found = [(none, none, self._points.x[:0])]
        for begin in range(0, len(going), TRACKS_AT_ONCE):
            tracks = going[begin : begin + TRACKS_AT_ONCE]
            taken = pieces.take(tracks, FITTED, self._room)
            ends = _Ends(self._points, taken, self._detector, outwards=outwards)
            row, at = ends.steps()
            row, hit = self._cells.around(row, at, self._event[ends.hit][row], self._room)
            free = labels[hit] == NO_TRACK
            row, hit = ends.near(row[free], hit[free])
            found.append((tracks[row], hit, ends.rise(row, hit, self._room)))
        track, hit, rise = (torch.cat(each) for each in zip(*found, strict=True))
        return track, hit, rise


class _Cells:
    """Where the hits on no track lie, in cubes.

    A cell's key fills a number, so it takes no event. Hits are sorted by their event and by how many
    keys, of all events, are less than theirs.
    """

    def __init__(self, points: Points, event: Tensor, free: Tensor) -> None:
        self._xyz = (points.x, points.y, points.z)
        key = _key(*(_cell(axis[free]) for axis in self._xyz))
        self._keys = torch.sort(key).values
        place = self._in_event(event[free], torch.searchsorted(self._keys, key))
        in_order = torch.sort(place, stable=True)
        self._hits, self._places = free[in_order.indices], in_order.values

    def _in_event(self, event: Tensor, less: Tensor) -> Tensor:
        """Return the event, and in it the number of keys that are less, as one number."""
        return event.long() * len(self._keys) + less

    def around(
        self, track: Tensor, at: tuple[Tensor, Tensor, Tensor], event: Tensor, room: Room
    ) -> tuple[Tensor, Tensor]:
        """Return each track's hits in the cubes within STEP of these places ``[K]`` of events.

        Raises :class:`InputError` where they are too many.
        """
        low, high = ([_cell(axis + to) for axis in at] for to in (-STEP, STEP))
        across = [(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])]
        from_key = torch.stack([_key(*each, low[2]) for each in across])
        to_key = torch.stack([_key(*each, high[2]) for each in across])
        first = torch.searchsorted(self._keys, from_key)
        behind = torch.searchsorted(self._keys, to_key, right=True)
        # The number of all keys is behind the last of an event, and is the first of the next one.
        begin = torch.searchsorted(self._places, self._in_event(event, first)).flatten()
        end = torch.searchsorted(self._places, self._in_event(event, behind)).flatten()
        many = (end - begin).clamp(max=MOST_IN_CELLS)
        ends = torch.cumsum(many, 0)
        total = int(ends[-1]) if len(ends) else 0
        room.check("hits near where tracks go on", total, LOOKED_AT_BYTES)
        which = torch.repeat_interleave(many, output_size=total)
        place = torch.arange(total, device=track.device) + (begin - ends + many)[which]
        hit, step = self._hits[place], which % max(1, len(track))
        x, y, z = (points[hit] - axis[step] for points, axis in zip(self._xyz, at, strict=True))
        near = x**2 + y**2 + z**2 < STEP * STEP
        pair = torch.unique((track[step[near]] << 32) + hit[near])
        return pair >> 32, pair & 0xFFFFFFFF


def _cell(x: Tensor) -> Tensor:
    """Return the cell of each coordinate (mm)."""
    cell = torch.floor(torch.nan_to_num(x) / CELL).clamp(-FARTHEST_CELL, FARTHEST_CELL)
    return cell.long() + (FARTHEST_CELL + 2)


def _key(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Return one number for a cell; those along z follow each other."""
    return (x << 40) + (y << 20) + z


class _Ends:
    """The ends of tracks, and how they go on from there; ``hit`` is the last hit there."""

    def __init__(
        self, points: Points, pieces: Pieces, detector: Detector, *, outwards: bool
    ) -> None:
        self._points, self._pieces, self._detector = points, pieces, detector
        self._outwards = outwards
        of_pieces = points.take(pieces.rows)
        self._circle = circles(of_pieces, pieces.begin)
        self._fits = fit_tracks(of_pieces, pieces.begin, detector, self._circle)
        self.hit = pieces.last if outwards else pieces.first
        every = torch.arange(len(pieces), device=self.hit.device)
        self._s = self._circle.project(every, points.x[self.hit], points.y[self.hit]).s

    def steps(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Return where tracks come on their way beyond the end: the track, and x, y, z (mm).

        Inwards no farther than where they come closest to the beam line.
        """
        every = torch.arange(len(self.hit), device=self.hit.device)
        track = every.repeat_interleave(STEPS)
        along = (STEP if self._outwards else -STEP) / torch.sqrt(1 + self._fits.cot**2)
        step = torch.arange(1, STEPS + 1, device=self.hit.device)
        gap = step.repeat(len(every)) * along[track]
        if not self._outwards:
            zero = torch.zeros_like(self._s)
            closest = self._circle.project(every, zero, zero).s - self._s
            before = gap > closest[track]
            track, gap = track[before], gap[before]
        x, y = self._circle.at(track, self._s[track] + gap)
        z = self._points.z[self.hit[track]] + self._fits.cot[track] * gap
        return track, (x, y, z)

    def near(self, track: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
        """Return those candidates, sorted, that lie beyond the end, near where the track goes on."""
        end, cot, points = self.hit[track], self._fits.cot[track], self._points
        at = self._circle.project(track, points.x[hit], points.y[hit])
        gap = at.s - self._s[track]
        z = points.z[end] + cot * gap - points.z[hit]
        length = gap.abs() * torch.sqrt(1 + cot**2)
        near = hit > end if self._outwards else hit < end
        near &= at.u.abs() < NEAR_U[0] + NEAR_U[1] * length
        near &= z.abs() < NEAR_Z[0] + NEAR_Z[1] * length
        track, hit = track[near], hit[near]
        begin = torch.searchsorted(track, track)
        place = torch.arange(len(track), device=track.device) - begin
        if not self._outwards:
            place = torch.searchsorted(track, track, right=True) - begin - 1 - place
        tried = place < MOST_TRIED
        return track[tried], hit[tried]

    def rise(self, track: Tensor, hit: Tensor, room: Room) -> Tensor:
        """Return by how much each candidate raises the deviance of its track.

        Raises :class:`InputError` where they are too many to be fitted.
        """
        hits = self._pieces.and_hits(hit)
        one = torch.arange(len(self._pieces), len(hits), device=hit.device)
        inner, outer = (track, one) if self._outwards else (one, track)
        together = hits.joined(inner, outer, FITTED, room)
        fits = fit_tracks(self._points.take(together.rows), together.begin, self._detector)
        return fits.deviance - self._fits.deviance[track]
