"""Tracks in a file: event_id, hit_id, track_id, the table of TrackML's submissions."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import numpy as np

from trackserve.data.sources import File
from trackserve.data.tables import read_table
from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Event, Hits, Int64, Tracks

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("event_id", "hit_id", "track_id")


class TrackWriter:
    """Writes the tracks of one event after the other to an open text file, a row a hit."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def write(self, event_id: int, hits: Hits, tracks: Tracks) -> None:
        """Write the rows of an event; a hit on no track has the track -1."""
        event = np.full(len(hits), event_id)
        self._writer.writerows(np.stack([event, hits.hit_id, tracks.labels], axis=1).tolist())


@dataclass(frozen=True, eq=False)
class Submission:
    """The rows of a file of tracks, sorted by event and hit; each int64 ``[R]``.

    Track ids may be any integers; hits of an event with one id are a track, and a negative id says
    that a hit is on none.
    """

    path: Path
    event_id: Int64
    hit_id: Int64
    track_id: Int64

    def tracks_of(self, event: Event) -> tuple[Tracks, int]:
        """Return the tracks of an event, joined by hit id, and how many of its hits have no row.

        Hits without a row are on no track. Raises InputError for an event that has hits and not one
        row, and for a row of a hit that the event doesn't have.
        """
        first, end = np.searchsorted(self.event_id, [event.event_id, event.event_id + 1])
        listed, track = self.hit_id[first:end], self.track_id[first:end]
        known = event.hits.hit_id
        if not len(listed) and len(known):
            events = ", ".join(map(str, np.unique(self.event_id)[:10])) or "none"
            message = f"{self.path} has no tracks of event {event.event_id}; it has events {events}"
            raise InputError(message)
        if len(strange := np.setdiff1d(listed, known)):
            message = (
                f"{self.path}: event {event.event_id} has no hit {strange[0]}; was the file made "
                "from another event of this number?"
            )
            raise InputError(message)
        found = np.isin(known, listed)
        labels = np.full(len(known), NO_TRACK, np.int64)
        labels[found] = track[np.searchsorted(listed, known[found])]
        on_track = labels >= 0
        labels[~on_track] = NO_TRACK
        labels[on_track] = np.unique(labels[on_track], return_inverse=True)[1]
        return Tracks(labels), int((~found).sum())


def read_tracks(path: Path) -> Submission:
    """Read a file of tracks, plain or .gz, with its columns in any order.

    Raises InputError, with file and row, for a garbled table, and for a hit that is listed twice.
    """
    file = File(path)
    table = read_table(file, dict.fromkeys(COLUMNS, np.int64))
    order = np.lexsort((table["hit_id"], table["event_id"]))
    event, hit = table["event_id"][order], table["hit_id"][order]
    again = np.flatnonzero((event[1:] == event[:-1]) & (hit[1:] == hit[:-1]))
    if len(again):
        row = order[again[0] + 1]
        message = (
            f"{file} row {row + 1}: hit {table['hit_id'][row]} of event {table['event_id'][row]} "
            f"was listed before, in row {order[again[0]] + 1}; a hit is on one track at most"
        )
        raise InputError(message)
    return Submission(path, event, hit, table["track_id"][order])
