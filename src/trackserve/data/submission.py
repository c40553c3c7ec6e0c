"""Tracks in a file: event_id, hit_id, track_id, the table of TrackML's submissions."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.columnar import LIST, Kinds, TableWriter, table_writer
from trackserve.data.sources import File
from trackserve.data.tables import read_table
from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Event, Hits, Int64, Tracks
from trackserve.track_table import TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("event_id", "hit_id", "track_id")
LABEL_KINDS: Kinds = dict.fromkeys(COLUMNS, np.int64)
PARAMETER_KINDS: Kinds = {
    **dict.fromkeys(("event_id", "track_id", "hits"), np.int64),
    **{name: np.float32 for name in TRACK_COLUMNS if name != "hits"},
    "hit_ids": LIST,
}


class TrackFiles:
    """Writes the tracks of one event after the other: a row a hit, and if wanted a row a track.

    ``parameters`` is a table of ``event_id``, ``track_id``, what is fitted of each track, and
    ``hit_ids``, its hits, in formats that have lists.
    """

    def __init__(self, labels: TableWriter, parameters: TableWriter | None = None) -> None:
        self._labels, self._parameters = labels, parameters

    @classmethod
    @contextmanager
    def open(cls, labels: Path | None, parameters: Path | None) -> Iterator[TrackFiles]:
        """Yield the files, which take their places when all is well; see :func:`table_writer`."""
        with ExitStack() as opened:
            writers = [opened.enter_context(table_writer(labels, "hits", LABEL_KINDS))]
            if parameters is not None:
                writers.append(
                    opened.enter_context(table_writer(parameters, "tracks", PARAMETER_KINDS))
                )
            yield cls(*writers)

    def write(self, event_id: int, hits: Hits, tracks: Tracks) -> None:
        """Write the rows of an event; a hit on no track has the track -1."""
        event = np.full(len(hits), event_id)
        rows = dict(zip(COLUMNS, (event, hits.hit_id, tracks.labels), strict=True))
        self._labels.write(rows)
        if self._parameters is None:
            return
        columns, lists = tracks.columns(), tracks.hits()
        order = np.concatenate(lists) if lists else np.empty(0, np.int64)
        self._parameters.write(
            {
                "event_id": np.full(len(tracks), event_id),
                **columns,
                "hit_ids": (hits.hit_id[order], columns["hits"]),
            }
        )


@dataclass(frozen=True, eq=False)
class Submission:
    """The rows of a file of tracks, sorted by event and hit; each int64 ``[R]``.

    Track ids may be any integers; hits of an event with one id are a track, and a negative id means
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
