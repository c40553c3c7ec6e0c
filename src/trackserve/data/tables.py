"""Tables of numbers in CSV files, plain or gzipped, in a folder or a zip: the ground of every reader."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

from trackserve.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

GZIP_LEVEL = 4
"""Where the time of zlib begins to rise faster than its files shrink."""


def write_table(
    path: Path, columns: Mapping[str, NDArray[np.generic]], *, compress: bool = True
) -> None:
    """Write columns of equal length as CSV, beside and then renamed; floats in their shortest form.

    The same columns give the same bytes: a gzipped file carries neither name nor time.
    Raises MissingDependencyError without pyarrow, which writes ten times faster than numpy.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import csv  # noqa: PLC0415
    except ImportError as error:
        message = f"writing events needs pyarrow ({error}): pip install 'trackserve[sim]'"
        raise MissingDependencyError(message) from error
    sink: Any = pa.BufferOutputStream()
    sink.write((",".join(columns) + "\n").encode())
    csv.write_csv(pa.table(dict(columns)), sink, csv.WriteOptions(include_header=False))
    text = sink.getvalue().to_pybytes()
    beside = path.with_name(f".{path.name}.partial")
    beside.write_bytes(gzip.compress(text, GZIP_LEVEL, mtime=0) if compress else text)
    beside.replace(path)
