"""Hits to features: fixed formulas, no network.

A feature is a column of the hit divided by a scale, as the bundle lists them. The same columns give
back where a hit is, which orients edges and feeds the geometric cuts.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - recipes look at the fields' types at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import BundleError, InputError
from trackserve.event import WIRE_COLUMNS, Float32, Int64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.event import Hits

_DERIVED: dict[str, Callable[[Float32, Float32, Float32], Float32]] = {
    "r": lambda x, y, _: np.hypot(x, y),
    "phi": lambda x, y, _: np.arctan2(y, x),
    "theta": lambda x, y, z: np.arctan2(np.hypot(x, y), z),
    "eta": lambda x, y, z: np.arcsinh(z / np.maximum(np.hypot(x, y), np.float32(1e-3))),
    "cos_phi": lambda x, y, _: np.cos(np.arctan2(y, x)),
    "sin_phi": lambda x, y, _: np.sin(np.arctan2(y, x)),
}
"""Columns worked out from x, y, z (mm): r in mm, angles in rad."""

COLUMNS = (*WIRE_COLUMNS, *_DERIVED)
"""Every column that a bundle may use as a feature."""


@dataclass(frozen=True)
class FeatureColumns:
    """Which columns are the features, and the scale that each is divided by.

    ``absent`` gives the value assumed for a column that a client doesn't send; a column beyond
    x, y, z that is not in it must be sent.
    """

    columns: tuple[str, ...]
    scales: tuple[float, ...]
    absent: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = [c for c in (*self.columns, *self.absent) if c not in COLUMNS]
        if unknown:
            message = f"unknown feature column {unknown[0]!r}; known are {', '.join(COLUMNS)}"
            raise BundleError(message)
        if len(self.columns) != len(self.scales) or any(not 0 < s < np.inf for s in self.scales):
            message = (
                f"{len(self.columns)} feature columns with scales {list(self.scales)}; expected "
                "one positive, finite scale for each column"
            )
            raise BundleError(message)
        if infinite := [c for c, value in self.absent.items() if not np.isfinite(value)]:
            message = f"{infinite[0]} is {self.absent[infinite[0]]} where absent; expected a finite number"
            raise BundleError(message)
        if not ({"x", "y", "z"} <= set(self.columns) or {"r", "phi", "z"} <= set(self.columns)):
            message = (
                f"the feature columns are {', '.join(self.columns)}; expected x, y, z or r, phi, z "
                "among them, since edges are oriented by position"
            )
            raise BundleError(message)

    @property
    def wire_columns(self) -> tuple[str, ...]:
        """The columns of a hit that the features are made from, x, y, z first."""
        return ("x", "y", "z", *(c for c in WIRE_COLUMNS[3:] if c in self.columns))


def hit_features(hits: Hits, features: FeatureColumns) -> Float32:
    """Return the features ``[N, F]`` of an event; raises :class:`InputError` for a column it lacks."""
    return feature_matrix(hits.table(features.wire_columns, features.absent), features)


def feature_matrix(hits: Float32, features: FeatureColumns) -> Float32:
    """Return the features ``[N, F]`` of hits ``[N, C]``.

    The columns of ``hits`` are ``features.wire_columns``, or x, y, z alone where the others may be
    absent. Raises :class:`InputError` that names the row for a value that is not finite.
    """
    hits = _with_absent_columns(hits, features)
    columns = dict(zip(features.wire_columns, hits.T, strict=True))
    x, y, z = (columns[name] for name in ("x", "y", "z"))
    matrix = np.empty((len(hits), len(features.columns)), np.float32)
    for i, (name, scale) in enumerate(zip(features.columns, features.scales, strict=True)):
        column = columns[name] if name in columns else _DERIVED[name](x, y, z)
        matrix[:, i] = column / np.float32(scale)
    return matrix


def _with_absent_columns(hits: Float32, features: FeatureColumns) -> Float32:
    wanted = features.wire_columns
    if hits.ndim != 2 or hits.dtype != np.float32 or hits.shape[1] not in {3, len(wanted)}:
        message = (
            f"hits are {hits.dtype} {list(hits.shape)}; expected float32 of shape "
            f"[N, {len(wanted)}]: {', '.join(wanted)}"
        )
        raise InputError(message)
    check_finite(hits, wanted)
    if hits.shape[1] == len(wanted):
        return hits
    missing = [c for c in wanted[3:] if c not in features.absent]
    if missing:
        message = f"hits have x, y, z only; this bundle also needs {', '.join(missing)}"
        raise InputError(message)
    filled = [np.full(len(hits), features.absent[c], np.float32) for c in wanted[3:]]
    return np.column_stack([hits, *filled])


def check_finite(table: Float32, columns: Sequence[str]) -> None:
    """Raise :class:`InputError` that names the first row and column that is not finite."""
    if np.isfinite(table).all():
        return
    row, column = np.argwhere(~np.isfinite(table))[0]
    message = (
        f"hit row {row}: {columns[column]} is {table[row, column]}; every hit needs finite numbers"
    )
    raise InputError(message)


def cylindrical(features: Float32, columns: FeatureColumns) -> tuple[Float32, Float32, Float32]:
    """Return r (mm), phi (rad) and z (mm) of each hit ``[N]``, read back from its features."""
    value = {
        name: features[:, i] * np.float32(scale)
        for i, (name, scale) in enumerate(zip(columns.columns, columns.scales, strict=True))
    }
    if {"r", "phi", "z"} <= value.keys():
        return value["r"], value["phi"], value["z"]
    return np.hypot(value["x"], value["y"]), np.arctan2(value["y"], value["x"]), value["z"]


def canonical_order(features: Float32, columns: FeatureColumns) -> Int64:
    """Return the row numbers ``[N]`` that sort hits by their distance from the origin.

    Hits at one distance are sorted by their features, so the order depends on the hits alone and
    not on how they arrived: every later sum runs in one order and an answer cannot depend on the
    order of the input. Edges then point outwards exactly when they run from a lower to a higher row.
    """
    r, _, z = cylindrical(features, columns)
    order: Int64 = np.lexsort((*features.T, r * r + z * z)).astype(np.int64, copy=False)
    return order
