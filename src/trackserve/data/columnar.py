"""Tables that grow event by event, in the format of their file's suffix: CSV, Parquet or ROOT."""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from trackserve.errors import InputError, needs_extra
from trackserve.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".root")
"""What a table can be written as."""
LIST = "list"
"""In the place of a column's type: rows of whole numbers, of any length, in formats that have them."""

Kinds = dict[str, Any]
"""The numpy type of each column, or :data:`LIST`."""


class TableWriter(ABC):
    """Writes one piece of a table after the other.

    A column of kind :data:`LIST` is a pair of arrays: all numbers, and how many each row has. CSV
    leaves such columns out.
    """

    @abstractmethod
    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows, given as columns."""


class _CsvWriter(TableWriter):
    def __init__(self, file: TextIO, kinds: Kinds) -> None:
        self._names = [name for name, kind in kinds.items() if kind != LIST]
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(self._names)

    def write(self, columns: Mapping[str, Any]) -> None:
        texts = [_shortest(columns[name]) for name in self._names]
        self._writer.writerows(zip(*texts, strict=True))


def _shortest(column: NDArray[Any]) -> list[Any]:
    """Return numbers to be written: a float in the fewest digits that read back as the same one."""
    numbers: list[Any] = (column if column.dtype.kind in "iu" else column.astype(str)).tolist()
    return numbers


class _ParquetWriter(TableWriter):
    def __init__(self, path: Path, kinds: Kinds, arrow: ModuleType, parquet: ModuleType) -> None:
        self._arrow = arrow
        types = [
            (name, arrow.list_(arrow.int64()) if kind == LIST else arrow.from_numpy_dtype(kind))
            for name, kind in kinds.items()
        ]
        self._writer = parquet.ParquetWriter(path, arrow.schema(types), compression="zstd")

    def write(self, columns: Mapping[str, Any]) -> None:
        arrow, schema = self._arrow, self._writer.schema
        arrays = [self._array(columns[name]) for name in schema.names]
        self._writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

    def _array(self, column: Any) -> Any:
        if not isinstance(column, tuple):
            return self._arrow.array(column)
        numbers, counts = column
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return self._arrow.ListArray.from_arrays(offsets, numbers)

    def close(self) -> None:
        """Write the footer, without which the file can't be read."""
        self._writer.close()


class _RootWriter(TableWriter):
    """A TTree named after the table; lists are arrays with a counter of their length."""

    def __init__(self, file: Any, name: str, kinds: Kinds, awkward: ModuleType) -> None:
        self._awkward = awkward
        types = {n: "var * int64" if kind == LIST else kind for n, kind in kinds.items()}
        self._names = list(kinds)
        self._tree = file.mktree(name, types)

    def write(self, columns: Mapping[str, Any]) -> None:
        self._tree.extend({name: self._array(columns[name]) for name in self._names})

    def _array(self, column: Any) -> Any:
        if not isinstance(column, tuple):
            return column
        numbers, counts = column
        return self._awkward.unflatten(numbers, counts)


def suffix_of(path: Path) -> str:
    """Return which of :data:`SUFFIXES` a file has; CSV for what is no regular file (a pipe, a device).

    Raises :class:`InputError` for any other suffix, and :class:`MissingDependencyError` where the
    format needs a package that isn't installed.
    """
    suffix = next((each for each in SUFFIXES if path.name.endswith(each)), "")
    if not suffix and path.exists() and not path.is_file():
        return SUFFIXES[0]
    if not suffix or path.name == suffix:
        message = f"{path} ends in none of {', '.join(SUFFIXES)}; the suffix chooses the format"
        raise InputError(message)
    _modules(suffix)
    return suffix


def _modules(suffix: str) -> list[ModuleType]:
    """Return the modules that write a format."""
    needed = {".parquet": ("pyarrow", "pyarrow.parquet"), ".root": ("uproot", "awkward")}
    with needs_extra(suffix[1:], f"writing {suffix}"):
        return [importlib.import_module(module) for module in needed.get(suffix, ())]


@contextlib.contextmanager
def table_writer(path: Path | None, name: str, kinds: Kinds) -> Iterator[TableWriter]:
    """Yield the writer of a table of this name, which takes its place at ``path`` when all is well.

    CSV goes to standard output for None and ``-``. Raises what :func:`suffix_of` does.
    """
    if path is None or str(path) == "-":
        yield _CsvWriter(sys.stdout, kinds)
        return
    suffix = suffix_of(path)
    modules = _modules(suffix)
    with whole(path) as beside:
        if suffix == ".parquet":
            with contextlib.closing(_ParquetWriter(beside, kinds, *modules)) as parquet:
                yield parquet
        elif suffix == ".root":
            uproot, awkward = modules
            with uproot.recreate(beside) as file:
                yield _RootWriter(file, name, kinds, awkward)
        else:
            opened = gzip.open if suffix == ".csv.gz" else open
            with opened(beside, "wt", encoding="utf-8", newline="") as text:
                yield _CsvWriter(text, kinds)
