"""Numpy arrays and the library's memory, seen from each other's side."""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.engines.native.abi import Memory


def pointer(array: np.ndarray[Any, Any]) -> c_void_p:
    """Return where the numbers are; the array stays for as long as the pointer."""
    assert array.flags.c_contiguous
    pointer = c_void_p(array.ctypes.data)
    pointer.array = array  # type: ignore[attr-defined]  # any name will do
    return pointer


class BorrowedBuffer:
    """An array in the library's memory, which is given back with the last array that looks at it."""

    def __init__(
        self,
        memory: Memory,
        shape: tuple[int, ...],
        dtype: type[np.generic],
        give_back: Callable[..., None],
    ) -> None:
        self._memory, self._give_back = memory, give_back
        self._none = np.empty(0, dtype)  # an address, even where there are no numbers
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (memory.start or self._none.ctypes.data, False),
        }

    def __del__(self) -> None:
        self._give_back(c_void_p(self._memory.start), c_int64(self._memory.bytes))
