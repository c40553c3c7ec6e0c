"""Tables of numbers as CSV or Parquet, read and written column by column."""

from __future__ import annotations

import difflib
import gzip
import importlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError, needs_extra
from trackserve.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.data.sources import File

GZIP_LEVEL = 4
"""Where the time of zlib begins to rise faster than its files shrink."""

PARQUET = ".parquet"
MOST_ROWS = 100_000_000
"""A table of more rows is no event's; it is refused before memory is taken for it."""
_PARQUET_SETTINGS: Mapping[str, Any] = {
    "compression": "zstd",
    "compression_level": 6,
    "use_dictionary": False,
    "use_byte_stream_split": True,
    "write_statistics": False,
}

Columns = dict[str, Any]
"""Numpy arrays of one length by the name of their column."""


def read_table(
    file: File, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> Columns:
    """Read the named columns of a CSV or Parquet file, each as an array of the given numpy type.

    Columns may come in any order and among others; ``optional`` ones are left out where the file
    lacks them. Integers are exact to 64 bits, floats must be finite. Raises InputError with file,
    row and column; rows are counted from 1, the header apart. Raises MissingDependencyError for a
    Parquet file without pyarrow (``trackserve[sim]``).
    """
    read = _read_parquet if file.name.endswith(PARQUET) else _read_csv
    table = read(file, required, optional or {})
    for name, values in table.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            value = values[bad[0]]
            message = f"{file} row {bad[0] + 1}: {name} is {value}; expected a finite number"
            raise InputError(message)
    return table


def _wanted(
    file: File, names: Sequence[str], required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, type]:
    """Return the columns to read of those that the file has; InputError if one is missing or twice there."""
    for name in (*required, *optional):
        if names.count(name) > 1:
            message = f"{file} has {names.count(name)} columns named {name}; expected one"
            raise InputError(message)
    for name in required:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            message = f"{file} has no column {name}{hint}; it has {', '.join(names)[:300]}"
            raise InputError(message)
    return {**required, **{name: kind for name, kind in optional.items() if name in names}}


def _read_parquet(
    file: File, required: Mapping[str, type], optional: Mapping[str, type]
) -> Columns:
    arrow, parquet = import_arrow("pyarrow", "pyarrow.parquet")
    try:
        # One thread, nothing read ahead: a thread that meets damage after the first error ends the
        # process when it is met at exit.
        content = parquet.ParquetFile(arrow.BufferReader(file.read()), pre_buffer=False)
        rows = content.metadata.num_rows
        if not 0 <= rows <= MOST_ROWS:
            message = f"{file} declares {rows:,} rows; expected at most {MOST_ROWS:,}"
            raise InputError(message)
        wanted = _wanted(file, content.schema_arrow.names, required, optional)
        table = content.read(columns=list(wanted), use_threads=False)
    except InputError:
        raise
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        message = f"{file} is not a Parquet file or is damaged: {reason}"
        raise InputError(message) from error
    columns: Columns = {}
    for name, dtype in wanted.items():
        values = table[name].to_numpy()
        whole = np.issubdtype(dtype, np.integer)
        if values.dtype.kind not in ("iu" if whole else "iuf") or table[name].null_count:
            found = f"{table[name].type} with {table[name].null_count} empty cells"
            message = f"{file}: {name} is {found}; expected {np.dtype(dtype)} and none"
            raise InputError(message)
        columns[name] = np.ascontiguousarray(values, dtype)
        if whole and not np.array_equal(columns[name], values):
            message = f"{file}: {name} has numbers too large for {np.dtype(dtype)}"
            raise InputError(message)
    return columns


def _read_csv(file: File, required: Mapping[str, type], optional: Mapping[str, type]) -> Columns:
    text = file.read().decode("utf-8-sig", "replace")
    if "\r" in text:  # the ends of lines on Windows, and on the first Macintosh
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    header, _, body = text.partition("\n")
    names = [name.strip().strip('"') for name in header.split(",")]
    if not header.strip():
        message = f"{file} is empty; expected a header with the columns {', '.join(required)}"
        raise InputError(message)
    wanted = _wanted(file, names, required, optional)
    if not body.strip():
        return {name: np.empty(0, dtype) for name, dtype in wanted.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns where 2.0 arrives for an integer
            rows = np.loadtxt(
                io.StringIO(body),
                dtype=list(wanted.items()),
                delimiter=",",
                comments=None,
                usecols=[names.index(name) for name in wanted],
                ndmin=1,
            )
    except (ValueError, Warning) as error:
        message = f"{file}{_first_fault(body, names, wanted) or f': {error}'}"
        raise InputError(message) from error
    if body.count(",") != len(rows) * (len(names) - 1):
        message = f"{file}{_first_fault(body, names, wanted)}"
        raise InputError(message)
    return {name: np.ascontiguousarray(rows[name]) for name in wanted}


def _first_fault(body: str, names: list[str], wanted: Mapping[str, type]) -> str:
    """Say where the table first goes wrong; the slow second look, after the fast reader failed."""
    lines = [line for line in body.split("\n") if line]
    for row, line in enumerate(lines, start=1):
        values = line.split(",")
        if len(values) != len(names):
            cut = "; the file ends there, cut off" if row == len(lines) else ""
            return f" row {row} has {len(values)} columns; expected {len(names)}{cut}"
        for name, dtype in wanted.items():
            value = values[names.index(name)].strip()
            kind: np.dtype[Any] = np.dtype(dtype)
            try:
                if kind.kind == "f":
                    float(value)
                elif not np.iinfo(kind).min <= int(value) <= np.iinfo(kind).max:
                    raise ValueError
            except ValueError:
                number = "a number" if kind.kind == "f" else f"a whole number ({kind})"
                return f" row {row}: {name} is {value[:40]!r}; expected {number}"
    return ""


def check_unique(values: NDArray[Any], *, owner: object, name: str) -> None:
    """Raise InputError, with both rows, if a value occurs twice in this column."""
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order[1:]] == values[order[:-1]])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        message = (
            f"{owner} row {second + 1}: {name} {values[second]} occurred before, in row {first + 1}; "
            "expected each once"
        )
        raise InputError(message)


def rows_of(
    wanted: NDArray[Any], unique: NDArray[Any], *, owner: object, name: str, among: str
) -> NDArray[np.intp]:
    """Find for each wanted value its row in ``unique``; InputError where it is not among them."""
    absent = np.flatnonzero(~np.isin(wanted, unique))
    if len(absent):
        row = absent[0]
        message = f"{owner} row {row + 1}: {name} {wanted[row]} is not among {among}"
        raise InputError(message)
    order = np.argsort(unique, kind="stable")
    return order[np.searchsorted(unique, wanted, sorter=order)]


def write_table(path: Path, columns: Mapping[str, NDArray[np.generic]]) -> None:
    """Write columns of equal length, beside and then renamed, in the form that the name ends in.

    That is .csv, .csv.gz or .parquet; floats in CSV have their shortest form. The same columns give
    the same bytes: a gzipped file carries neither name nor time. Raises MissingDependencyError
    without pyarrow, which writes ten times faster than numpy.
    """
    arrow, csv, parquet = import_arrow("pyarrow", "pyarrow.csv", "pyarrow.parquet")
    sink = arrow.BufferOutputStream()
    table = arrow.table(dict(columns))
    if path.name.endswith(PARQUET):
        parquet.write_table(table, sink, **_PARQUET_SETTINGS)
    else:
        sink.write((",".join(columns) + "\n").encode())
        csv.write_csv(table, sink, csv.WriteOptions(include_header=False))
    content = sink.getvalue().to_pybytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
    write_bytes(path, content)


def import_arrow(*modules: str) -> list[Any]:
    """Import parts of pyarrow; raises MissingDependencyError without it."""
    with needs_extra("sim", "writing events, or a Parquet file,"):
        return [importlib.import_module(module) for module in modules]
