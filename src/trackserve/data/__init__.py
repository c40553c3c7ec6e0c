"""Where events come from: files of TrackML, ACTS, acorn and ColliderML; simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.data import colliderml
from trackserve.data.acorn import AcornEvent
from trackserve.data.acts import ActsEvent
from trackserve.data.sources import EventSource, find_sources
from trackserve.data.trackml import TrackMLEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.event import Event

_KINDS: tuple[type[EventSource], ...] = (ActsEvent, TrackMLEvent, AcornEvent)

__all__ = ["EventSource", "find_events", "read_events"]


def find_events(path: Path) -> list[EventSource]:
    """Find the events at a path, in any of the formats, sorted by number and not yet read.

    The path is a folder, a .zip, or the prefix (``.../event000001000``) or any file of one event.
    Of ColliderML it is a folder or one of its files. Raises InputError where there is none, with what was
    found instead.
    """
    return [*colliderml.find_events(path)] or [*find_sources(path, _KINDS)]


def read_events(path: Path | str) -> Iterator[Event]:
    """Read the events at a path one after the other, each with its truth where the source has it.

    What the path may be, and what is raised, is as in :func:`find_events`.
    """
    return (source.read() for source in find_events(Path(path)))
