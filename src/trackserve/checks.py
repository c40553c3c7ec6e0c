"""Checks of the columns of a table: one-dimensional numpy arrays of one length."""

from __future__ import annotations

from typing import Any

import numpy as np

from trackserve.errors import InputError


def check_column(owner: str, name: str, array: object, dtype: type, length: int | None) -> None:
    """Raise unless ``array`` is a one-dimensional numpy array of ``dtype`` and ``length``."""
    expected: np.dtype[Any] = np.dtype(dtype)
    if not isinstance(array, np.ndarray) or array.dtype != expected or array.ndim != 1:
        found = (
            f"{array.dtype} {list(array.shape)}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        message = f"{owner}.{name} is {found}; expected a numpy array of {expected} with shape [N]"
        raise InputError(message)
    if length is not None and len(array) != length:
        message = (
            f"{owner}.{name} has {len(array)} entries; expected {length}, as the other columns"
        )
        raise InputError(message)


def check_columns(owner: object, dtypes: dict[str, type]) -> None:
    """Raise :class:`InputError` unless these attributes are columns of these types and of one length."""
    name = type(owner).__name__
    length: int | None = None
    for column, dtype in dtypes.items():
        array = getattr(owner, column)
        check_column(name, column, array, dtype, length)
        length = len(array)
