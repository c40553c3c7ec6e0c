"""An event's hits in the columns that a served model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.columns import sent_columns
from trackserve.errors import InputError
from trackserve.event import Float32, Hits

if TYPE_CHECKING:
    from trackserve.contract.description import Description


def hits_table(hits: object, description: Description) -> Float32:
    """Return the hits in the model's columns ``[N, C]``.

    ``hits`` are :class:`Hits`, numbers in the model's columns or x, y, z alone, or anything with
    named columns (see :mod:`trackserve.columns`). Columns that they don't have are filled with the
    values that the bundle gives for that. Raises :class:`InputError` for hits that can't be used.
    """
    columns = description.columns
    if isinstance(hits, Hits):
        parts = [part for part in (hits, hits.modules, hits.clusters) if part is not None]
        sent = [c for c in columns if any(hasattr(part, c) for part in parts)]
        table = hits.table(sent)
    elif (named := sent_columns(hits, columns)) is not None:
        table, sent = named
    else:
        table = as_float32(hits, "hits", f"[N, {len(columns)}]: {', '.join(columns)}")
        if table.shape[1] not in {3, len(columns)}:
            takes = ", ".join(columns)
            alone = "" if len(columns) == 3 else ", or x, y, z alone"
            message = (
                f"hits have {table.shape[1]} columns without names; this model takes {takes}{alone}"
            )
            raise InputError(message)
        sent = list(columns[: table.shape[1]])
    return table if len(sent) == len(columns) else _with_absent_columns(table, sent, description)


def as_float32(array: object, name: str, expected: str) -> Float32:
    """Return numbers of two dimensions as they are sent; raises :class:`InputError` for others."""
    numbers = np.asarray(array)
    if numbers.ndim != 2 or numbers.dtype.kind not in "fiu":
        message = f"{name} are {numbers.dtype} {list(numbers.shape)}; expected numbers of shape {expected}"
        raise InputError(message)
    return np.ascontiguousarray(numbers, dtype=np.float32)


def _with_absent_columns(table: Float32, sent: list[str], description: Description) -> Float32:
    if missing := [c for c in description.columns if c not in sent and c not in description.absent]:
        message = (
            f"these hits have no {', '.join(missing)}, which the bundle {description.bundle} needs"
        )
        raise InputError(message)
    filled = np.empty((len(table), len(description.columns)), np.float32)
    for i, column in enumerate(description.columns):
        filled[:, i] = (
            table[:, sent.index(column)] if column in sent else description.absent[column]
        )
    return filled
