"""Where the files of an event lie: beside each other in a folder, or in a zip archive."""

from __future__ import annotations

import difflib
import gzip
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import IO, TYPE_CHECKING, ClassVar, TypeVar

from trackserve.errors import InputError
from trackserve.event import Clusters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trackserve.event import Event

_EVENT_FILE = re.compile(r"(?P<prefix>event(?P<id>\d+))-(?P<table>[\w-]+)\.(csv|csv\.gz|parquet)")
_EVENT_PREFIX = re.compile(r"(?P<prefix>event\d+)(-.*)?")
CLUSTER_COLUMNS = frozenset(field.name for field in fields(Clusters))
MOST_BYTES = 4_000_000_000
"""A table of more bytes, decompressed, is no event's: reading stops there."""
EXPECTED = (
    "expected files named such as event000001000-hits.csv, .csv.gz or .parquet, together or in a .zip "
    "(TrackML's hits, ACTS' measurements or spacepoint, acorn's truth), or ColliderML's tracker_hits in .parquet"
)


@dataclass(frozen=True)
class File:
    """A file on disk, or a member of the zip archive at ``path``."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    @property
    def name(self) -> str:
        """The last part of the name."""
        return self.path.name if self.member is None else self.member.rpartition("/")[2]

    def read(self) -> bytes:
        """Return the content, decompressed if the name ends in .gz.

        Raises InputError for what is damaged, no regular file or larger than MOST_BYTES.
        """
        try:
            with self._open() as file:
                content = file.read(MOST_BYTES + 1)
        except EOFError as error:
            message = f"{self} ends in the middle of its gzip data; copy or make the file again"
            raise InputError(message) from error
        except gzip.BadGzipFile as error:
            message = f"{self} is named .gz and is not a gzip file or is damaged ({error})"
            raise InputError(message) from error
        except (
            OSError,
            zlib.error,
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
        ) as error:
            # The last two: a member with a password, or compressed in a way that Python has not.
            message = f"{self} cannot be read: {error}"
            raise InputError(message) from error
        if len(content) > MOST_BYTES:
            message = (
                f"{self} is larger than {MOST_BYTES / 1e9:.0f} GB; a table of one event is not"
            )
            raise InputError(message)
        return content

    @contextmanager
    def _open(self) -> Iterator[IO[bytes] | gzip.GzipFile]:
        """Open the content; what is compressed is decompressed as it is read."""
        with ExitStack() as opened:
            file: IO[bytes] | gzip.GzipFile
            if self.member is None:
                if not self.path.is_file():  # to read from a pipe would wait for its writer
                    there = self.path.exists()
                    message = "not a regular file" if there else "there is no such file"
                    raise OSError(message)
                file = opened.enter_context(self.path.open("rb"))
            else:
                archive = opened.enter_context(zipfile.ZipFile(self.path))
                file = opened.enter_context(archive.open(self.member))
            if self.name.endswith(".gz"):
                file = opened.enter_context(gzip.GzipFile(fileobj=file))
            yield file


@dataclass(frozen=True)
class EventSource(ABC):
    """An event that has not been read yet: its number and the file of each of its tables."""

    event_id: int
    prefix: str
    tables: Mapping[str, File]

    marks: ClassVar[frozenset[str]]
    """The tables of which an event of this format has at least one."""
    foreign: ClassVar[frozenset[str]] = frozenset()
    """The tables of which it has none."""

    def __str__(self) -> str:
        return self.prefix

    @classmethod
    def is_of(cls, tables: Mapping[str, File]) -> bool:
        """Whether an event with these tables is of this format."""
        return bool(cls.marks & tables.keys()) and not cls.foreign & tables.keys()

    @abstractmethod
    def read(self, *, truth: bool = True, cells: bool = False) -> Event:
        """Read hits, their truth if asked, and the shapes of their clusters of cells if asked."""

    def read_columns(self, columns: Sequence[str], *, truth: bool = True) -> Event:
        """Read the event; its cells too if one of these columns of a hit is made from them.

        An event without a table of cells is read without.
        """
        cells = any(column in CLUSTER_COLUMNS for column in columns) and "cells" in self.tables
        return self.read(truth=truth, cells=cells)

    def file(self, *names: str) -> File:
        """Return the file of the first of these tables that the event has; InputError if none."""
        for name in names:
            if name in self.tables:
                return self.tables[name]
        message = f"{self.prefix} has no {' or '.join(names)} file; it has {', '.join(sorted(self.tables))}"
        raise InputError(message)


Source = TypeVar("Source", bound=EventSource)


def find_sources(path: Path, kinds: Sequence[type[Source]]) -> list[Source]:
    """Find the events in a folder or zip archive, or the one event that a path points to.

    A path to one event is its prefix (``.../event000001000``) or any of its files. An event is of
    the first kind that it has a marking table of; one without any is not complete and left out.
    Events come sorted by number. Raises InputError where none is found, with the nearest names.
    """
    wanted = None
    container = path
    if not path.is_dir() and path.suffix != ".zip":
        match = _EVENT_PREFIX.fullmatch(path.name)
        if match is None:
            what = "is not named like an event" if path.exists() else "does not exist"
            message = f"{path} {what}; {EXPECTED}"
            raise InputError(message)
        wanted, container = match["prefix"], path.parent
    found: dict[tuple[int, str], dict[str, File]] = {}
    files = _list_files(container)
    for file in files:
        match = _EVENT_FILE.fullmatch(file.name)
        if match is not None:
            prefix = str(file)[: -len(file.name)] + match["prefix"]
            tables = found.setdefault((int(match["id"]), prefix), {})
            if match["table"] in tables:
                message = (
                    f"{tables[match['table']]} and {file.name} are the same table; keep one of them"
                )
                raise InputError(message)
            tables[match["table"]] = file
    if not found:
        message = f"{container} holds no events{_contents(files)}; {EXPECTED}"
        raise InputError(message)
    if wanted is not None:
        names = {prefix.rpartition("/")[2] for _, prefix in found}
        if wanted not in names:
            near = difflib.get_close_matches(wanted, sorted(names), cutoff=0)
            message = f"{container} has no event {wanted}; the nearest there are {', '.join(near)}"
            raise InputError(message)
        found = {key: tables for key, tables in found.items() if key[1].endswith(wanted)}
    sources = []
    for (event_id, prefix), tables in sorted(found.items()):
        kind = next((kind for kind in kinds if kind.is_of(tables)), None)
        if kind is not None:
            sources.append(kind(event_id, prefix, tables))
    if not sources:
        (_, prefix), tables = min(found.items())
        marks = " or ".join(sorted(set().union(*(kind.marks for kind in kinds))))
        message = f"{prefix} has no {marks} file; it has {', '.join(sorted(tables))}"
        raise InputError(message)
    return sources


def _contents(files: Sequence[File]) -> str:
    """Return what lies there instead of events: the first few names."""
    names = [file.name for file in files if file.name][:4]
    more = len(files) - len(names)
    return f" but {', '.join(names)}{f' and {more} more' if more else ''}" if names else ""


def one_source(path: Path, kinds: Sequence[type[Source]]) -> Source:
    """Find the one event that a path points to; InputError if it holds more."""
    sources = find_sources(path, kinds)
    if len(sources) > 1:
        message = f"{path} holds {len(sources)} events; expected the prefix or a file of one"
        raise InputError(message)
    return sources[0]


def _list_files(container: Path) -> list[File]:
    """Return the files of a folder (not of those below it), or all members of a zip archive."""
    try:
        if container.is_dir():
            return [File(path) for path in sorted(container.iterdir())]
        with zipfile.ZipFile(container) as archive:
            return [File(container, name) for name in sorted(archive.namelist())]
    except FileNotFoundError as error:
        message = f"{container} does not exist; {EXPECTED}"
        raise InputError(message) from error
    except zipfile.BadZipFile as error:
        message = f"{container} is named .zip and is not a zip archive or is truncated ({error})"
        raise InputError(message) from error
    except NotImplementedError as error:  # made by a newer version of the format
        message = f"{container} cannot be read: {error}; pack the events as an ordinary .zip"
        raise InputError(message) from error
    except OSError as error:
        message = f"{container} cannot be read: {error}"
        raise InputError(message) from error
