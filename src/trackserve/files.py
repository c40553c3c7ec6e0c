"""The one way in which files are written: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what is written there takes its place at ``path`` when all is well.

    A reader sees the old file or the new one, never half of one, and an error leaves the old one.
    A symbolic link stays a link: the file that it names is replaced, and keeps its permissions. What
    is no regular file (a pipe, a device) is yielded as it is, to be written to.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    place = path.resolve()
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
        beside = Path(folder, place.name)
        yield beside
        if place.exists():
            beside.chmod(stat.S_IMODE(place.stat().st_mode))
        beside.replace(place)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole(path) as beside, beside.open("wb") as file:
        file.write(content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes its place at ``path``, in place of what is there, when all is well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as parent:
        beside, old = Path(parent, "new"), Path(parent, "old")
        beside.mkdir()
        yield beside
        if path.exists():
            path.rename(old)
        os.replace(beside, path)  # noqa: PTH105 - Path.replace of a folder reads as if it could merge
