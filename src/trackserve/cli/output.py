"""Files that a command writes."""

from __future__ import annotations

import contextlib
import gzip
import sys
from typing import TYPE_CHECKING, TextIO

from trackserve.errors import InputError
from trackserve.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_place(path: Path | None) -> None:
    """Raise :class:`InputError` if the result of a long run could not be written there."""
    if path is not None and path.is_dir():
        message = f"{path} is a folder; name a file"
        raise InputError(message)
    if path is not None and not path.parent.is_dir():
        message = f"folder {path.parent} does not exist; create it, or write {path.name} elsewhere"
        raise InputError(message)


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[TextIO]:
    """Yield a text file that appears only when complete; standard output for None and ``-``.

    It is gzipped if its name ends in .gz.
    """
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    opened = gzip.open if path.suffix == ".gz" else open
    with whole(path) as beside, opened(beside, "wt", encoding="utf-8", newline="") as file:
        yield file
