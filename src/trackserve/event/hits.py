"""Hits: where particles crossed the detector, with the modules and clusters behind them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.checks import check_columns
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trackserve.event.arrays import Bool, Float32, Int32, Int64

WIRE_COLUMNS = (
    *("x", "y", "z"),
    *("volume_id", "layer_id", "module_id"),
    *("cells", "length_u", "length_v", "charge"),
)
"""Everything about a hit that can be sent to a server, x, y, z (mm) first."""


@dataclass(frozen=True, eq=False)
class Modules:
    """The detector module that each hit lies on, numbered as in TrackML; each int32 ``[N]``."""

    volume_id: Int32
    layer_id: Int32
    module_id: Int32

    def __post_init__(self) -> None:
        check_columns(self, {"volume_id": np.int32, "layer_id": np.int32, "module_id": np.int32})

    def __len__(self) -> int:
        return len(self.volume_id)


@dataclass(frozen=True, eq=False)
class Clusters:
    """The shape of the cluster of cells behind each hit; each ``[N]``.

    ``cells`` counts the cells, ``length_u`` and ``length_v`` count the channels that they span
    along the two local axes, and ``charge`` is the sum of the cells' values.
    """

    cells: Int32
    length_u: Int32
    length_v: Int32
    charge: Float32

    def __post_init__(self) -> None:
        check_columns(
            self,
            {"cells": np.int32, "length_u": np.int32, "length_v": np.int32, "charge": np.float32},
        )

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, eq=False)
class Hits:
    """The space points of one event: what track finding starts from.

    ``x``, ``y``, ``z`` are float32 ``[N]`` in mm and finite; ``hit_id`` is int64 ``[N]`` and
    unique. ``modules`` and ``clusters`` are there when the source has them.
    """

    hit_id: Int64
    x: Float32
    y: Float32
    z: Float32
    modules: Modules | None = None
    clusters: Clusters | None = None

    def __post_init__(self) -> None:
        check_columns(self, {"hit_id": np.int64, "x": np.float32, "y": np.float32, "z": np.float32})
        for name in ("x", "y", "z"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)))
            if len(bad):
                value = getattr(self, name)[bad[0]]
                message = (
                    f"hit row {bad[0]}: {name} is {value}; every hit needs finite x, y, z in mm"
                )
                raise InputError(message)
        ids, counts = np.unique(self.hit_id, return_counts=True)
        if len(ids) != len(self.hit_id):
            message = f"hit id {ids[counts > 1][0]} occurs more than once; hit ids must be unique"
            raise InputError(message)
        for part in (self.modules, self.clusters):
            if part is not None and len(part) != len(self):
                message = (
                    f"{type(part).__name__} describes {len(part)} hits; expected {len(self)}, "
                    "one for each hit"
                )
                raise InputError(message)

    def __len__(self) -> int:
        return len(self.hit_id)

    @classmethod
    def from_positions(cls, positions: NDArray[np.floating[Any]]) -> Hits:
        """Make hits from positions ``[N, 3]`` (x, y, z in mm), numbered from 0."""
        array = np.asarray(positions)
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
            message = (
                f"positions are {array.dtype} {list(array.shape)}; expected numbers of shape [N, 3]: "
                "x, y, z in mm"
            )
            raise InputError(message)
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
            x, y, z = np.ascontiguousarray(array.T, dtype=np.float32)
        return cls(hit_id=np.arange(len(array), dtype=np.int64), x=x, y=y, z=z)

    def table(self, columns: Sequence[str], absent: Mapping[str, float] | None = None) -> Float32:
        """Return these columns of the hits as float32 ``[N, C]``: what goes over the wire.

        Columns are ``x``, ``y``, ``z`` (mm) and the fields of :class:`Modules` and
        :class:`Clusters`. One that these hits don't have is filled with its value in ``absent``;
        raises :class:`InputError` if it has none there.
        """
        sources = (self, self.modules, self.clusters)
        table = np.empty((len(self), len(columns)), np.float32)
        for i, column in enumerate(columns):
            owner = next((s for s in sources if s is not None and hasattr(s, column)), None)
            if column in WIRE_COLUMNS and owner is not None:
                table[:, i] = getattr(owner, column)
            elif absent is not None and column in absent:
                table[:, i] = absent[column]
            else:
                message = f"these hits have no column {column!r}, which was asked for"
                raise InputError(message)
        return table

    def select(self, rows: NDArray[np.integer[Any]] | Bool) -> Hits:
        """Return the hits of these rows, in this order."""

        def taken(part: Modules | Clusters | None) -> dict[str, NDArray[np.generic]] | None:
            if part is None:
                return None
            return {f.name: getattr(part, f.name)[rows] for f in fields(part)}

        modules, clusters = taken(self.modules), taken(self.clusters)
        return Hits(
            hit_id=self.hit_id[rows],
            x=self.x[rows],
            y=self.y[rows],
            z=self.z[rows],
            modules=None if modules is None else Modules(**modules),  # type: ignore[arg-type]  # fields by name
            clusters=None if clusters is None else Clusters(**clusters),  # type: ignore[arg-type]  # fields by name
        )
