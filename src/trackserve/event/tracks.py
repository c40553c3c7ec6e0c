"""Tracks: for each hit the number of its track, with fitted parameters on request."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.checks import check_column
from trackserve.errors import InputError, needs_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trackserve.event.arrays import Bool, Int64
    from trackserve.track_table import TrackTable

NO_TRACK = -1
"""Label of a hit that is on no track."""


@dataclass(frozen=True, eq=False, repr=False)
class Tracks:
    """The answer: for each hit the number of its track, int64 ``[N]``; -1 for a hit on none.

    Track numbers run from 0 without gaps. ``parameters`` describe each track where they were asked
    for.
    """

    labels: Int64
    parameters: TrackTable | None = None

    def __post_init__(self) -> None:
        check_column("Tracks", "labels", self.labels, np.int64, None)
        above = self.labels + 1
        # As unsigned numbers, so that one comparison finds those below 0 and those too large.
        fits = int(above.view(np.uint64).max(initial=0)) <= len(above)
        counts = np.bincount(above) if fits else above
        if not (fits and counts[1:].all()):
            message = (
                "Tracks.labels must number the tracks 0, 1, 2, ... without gaps; -1 is no track"
            )
            raise InputError(message)
        tracks = max(len(counts) - 1, 0)
        if self.parameters is not None and len(self.parameters) != tracks:
            message = f"Tracks.parameters has {len(self.parameters)} rows for {tracks} tracks"
            raise InputError(message)

    def __len__(self) -> int:
        """Return the number of tracks."""
        return int(self.labels.max(initial=NO_TRACK)) + 1

    def __repr__(self) -> str:
        fitted = "" if self.parameters is None else ", with parameters"
        return f"<{len(self)} tracks in {len(self.labels)} hits{fitted}>"

    def hits(self) -> list[Int64]:
        """Return the hits of each track, as row numbers in increasing order."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels + 1, minlength=1))
        return np.split(order, ends)[1:-1]

    def select(self, kept: Bool) -> Tracks:
        """Return the tracks of these ``[T]``, numbered again from 0; hits of others are on none.

        ``tracks.select(tracks.parameters.quality > 0.9)`` has fewer fakes, and misses more particles.
        """
        if kept.shape != (len(self),) or kept.dtype != np.bool_:
            message = f"selected {kept.dtype} {list(kept.shape)}; expected bool [{len(self)}], one a track"
            raise InputError(message)
        number = np.append(np.where(kept, np.cumsum(kept) - 1, NO_TRACK), NO_TRACK)
        table = None if self.parameters is None else self.parameters.select(kept)
        return Tracks(number[self.labels], table)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the tracks as columns ``[T]``: ``track_id``, ``hits`` and what is fitted of each.

        It is what ``pandas.DataFrame(tracks.columns())`` takes, and ``polars.DataFrame``.
        """
        count = np.bincount(self.labels + 1, minlength=1)[1:]
        columns: dict[str, NDArray[Any]] = {"track_id": np.arange(len(count)), "hits": count}
        fitted = {} if self.parameters is None else self.parameters.columns()
        return columns | {name: column for name, column in fitted.items() if name != "hits"}

    def to_awkward(self) -> Any:
        """Return an Awkward Array of tracks, each a record of :meth:`columns` with ``hits``, its rows of hits.

        Raises :class:`MissingDependencyError` without awkward (``trackserve[root]``).
        """
        with needs_extra("root", "an Awkward Array"):
            awkward = import_module("awkward")
        columns, lists = self.columns(), self.hits()
        rows = np.concatenate(lists) if lists else np.empty(0, np.int64)
        hits = awkward.unflatten(rows, columns["hits"])
        return awkward.zip({**columns, "hits": hits}, depth_limit=1)
