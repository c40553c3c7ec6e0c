"""What is fitted of each track, as a table of plain columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackserve.checks import check_columns
from trackserve.errors import InputError

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrackTable:
    """What is fitted of each track, row t for the track of label t; each column ``[T]``.

    At the track's closest approach to the beam line: ``pt`` (GeV), ``eta``, ``phi`` (rad in (-pi, pi]),
    ``d0`` (mm; positive where the track passes to the left of the beam line, seen along it), ``z0``
    (mm) and ``charge`` (e). ``chi2`` is per degree of freedom, ``hits`` the number of hits. ``quality``,
    in [0, 1], is the share of tracks like this one that are right: more than half of the track's hits
    come from one particle, and more than half of that particle's hits are on the track. The others are
    standard deviations. A track that can't be fitted, of fewer than three hits, has nan and quality 0.
    """

    pt: Float32
    eta: Float32
    phi: Float32
    d0: Float32
    z0: Float32
    charge: Float32
    chi2: Float32
    hits: Float32
    quality: Float32
    pt_error: Float32
    eta_error: Float32
    phi_error: Float32
    d0_error: Float32
    z0_error: Float32

    def __post_init__(self) -> None:
        check_columns(self, dict.fromkeys(TRACK_COLUMNS, np.float32))

    def __len__(self) -> int:
        return len(self.pt)

    def matrix(self) -> Float32:
        """Return the columns as float32 ``[T, 14]``: what goes over the wire."""
        return np.stack([getattr(self, name) for name in TRACK_COLUMNS], axis=1)

    def columns(self) -> dict[str, Float32]:
        """Return the columns by name; not copies."""
        return {name: getattr(self, name) for name in TRACK_COLUMNS}

    def select(self, rows: NDArray[Any]) -> TrackTable:
        """Return the rows of these numbers, or where it is true."""
        return TrackTable(*(column[rows] for column in self.columns().values()))

    @classmethod
    def from_matrix(cls, matrix: Float32) -> TrackTable:
        """Return the table of columns ``[T, 14]``; raises :class:`InputError` for another shape."""
        if matrix.ndim != 2 or matrix.shape[1] != len(TRACK_COLUMNS):
            message = (
                f"track parameters have shape {list(matrix.shape)}; expected "
                f"[T, {len(TRACK_COLUMNS)}]: {', '.join(TRACK_COLUMNS)}"
            )
            raise InputError(message)
        return cls(*np.ascontiguousarray(matrix.T, np.float32))


TRACK_COLUMNS = tuple(column.name for column in fields(TrackTable))
"""The columns of a :class:`TrackTable`, in the order in which they are sent."""
