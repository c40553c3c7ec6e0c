"""Hits from what people have: an array, a dict of arrays, a data frame, a record or structured array."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError
from trackserve.event import WIRE_COLUMNS, Clusters, Hits, Modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

HitsLike = Any
"""Hits as people have them: :class:`Hits`, numbers ``[N, 3]``, or named columns (:func:`as_hits`)."""
POSITION = ("x", "y", "z")


def named_columns(hits: object) -> Mapping[str, Any] | None:
    """Return what has columns of names (a dict, a data frame, a record or structured array) by name.

    Returns None for what has none, such as a plain array. Columns are not copied.
    """
    names = _names(hits)
    if names is None:
        return None
    return {str(name): hits[name] for name in names}  # type: ignore[index]  # it has names


def _names(hits: object) -> Iterable[str] | None:
    if isinstance(hits, Mapping):
        return list(hits)
    if isinstance(hits, np.ndarray):
        return list(hits.dtype.names) if hits.dtype.names else None
    # pandas, polars, Arrow (column_names) and Awkward Array (fields).
    for attribute in ("column_names", "columns", "fields"):
        names = getattr(hits, attribute, None)
        if names is not None and not callable(names) and hasattr(hits, "__getitem__"):
            listed = list(names)
            return listed if all(isinstance(name, str) for name in listed) else None
    return None


def column(columns: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Return one column as numbers ``[N]``.

    Raises :class:`InputError` that names the column if it is missing or holds no numbers.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, list(columns), n=1)
        hint = f"; is it {near[0]!r}?" if near else ""
        found = ", ".join(columns) or "none"
        message = f"the hits have no column {name!r}; they have {found}{hint}"
        raise InputError(message)
    try:
        array = np.asarray(columns[name])
    except (TypeError, ValueError) as error:
        message = f"column {name!r} of the hits is no array of numbers: {error}"
        raise InputError(message) from None
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        message = f"column {name!r} of the hits is {array.dtype} {list(array.shape)}; expected numbers [N]"
        raise InputError(message)
    return array


def table(columns: Mapping[str, Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Return these columns as float32 ``[N, C]``; raises :class:`InputError` unless all have one length."""
    arrays = [column(columns, name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if len(array) != len(arrays[0]):
            message = f"column {name!r} of the hits has {len(array)} rows; {names[0]!r} has {len(arrays[0])}"
            raise InputError(message)
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
        return np.stack([array.astype(np.float32) for array in arrays], axis=1)


def as_hits(hits: object) -> Hits:
    """Return :class:`Hits` from anything that has x, y, z in mm.

    That is ``Hits``; numbers ``[N, 3]``; or named columns: a dict of arrays, a data frame, an Awkward
    or structured array, of which ``hit_id`` (0, 1, ... if there is none), ``x``, ``y``, ``z`` and the
    columns of modules and clusters are read and others are left alone. Raises :class:`InputError`
    that names the column which is missing.
    """
    if isinstance(hits, Hits):
        return hits
    columns = named_columns(hits)
    if columns is None:
        return Hits.from_positions(np.asarray(hits))
    x, y, z = table(columns, POSITION).T
    count = np.arange(len(x), dtype=np.int64)
    modules = dict.fromkeys(Modules.__dataclass_fields__, np.int32)
    clusters = dict(zip(Clusters.__dataclass_fields__, (*[np.int32] * 3, np.float32), strict=True))

    def part(kinds: Mapping[str, type]) -> dict[str, NDArray[Any]] | None:
        if not kinds.keys() <= columns.keys():
            return None
        return {name: column(columns, name).astype(kind) for name, kind in kinds.items()}

    of_module, of_cluster = part(modules), part(clusters)
    return Hits(
        hit_id=column(columns, "hit_id").astype(np.int64) if "hit_id" in columns else count,
        x=np.ascontiguousarray(x),
        y=np.ascontiguousarray(y),
        z=np.ascontiguousarray(z),
        modules=None if of_module is None else Modules(**of_module),
        clusters=None if of_cluster is None else Clusters(**of_cluster),
    )


def sent_columns(
    hits: object, wanted: Sequence[str]
) -> tuple[NDArray[np.float32], list[str]] | None:
    """Return what can be sent of named columns: those that are wanted, x, y, z at least.

    Returns the table ``[N, C]`` and its columns' names, or None for hits without names.
    """
    columns = named_columns(hits)
    if columns is None:
        return None
    names = [
        name for name in wanted if name in POSITION or (name in columns and name in WIRE_COLUMNS)
    ]
    return table(columns, names), names
