"""Tracks of many events in turn, from a server or from the pipeline in this process."""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from trackserve.contract.tensors import TRACK_FINDING
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import InputError, TrackserveError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from trackserve.data import EventSource
    from trackserve.event import Float32, Hits, Tracks


@dataclass(frozen=True)
class Finder:
    """What finds the tracks of an event, from hits in ``columns`` or from scaled features ``[N, F]``."""

    find_tracks: Callable[[Hits], Tracks]
    columns: Sequence[str]
    find_tracks_from_features: Callable[[Float32], Tracks]

    def find_all(self, sources: Iterable[EventSource]) -> Iterator[EventTracks | EventFailure]:
        """Read each event and yield its tracks, or why there are none."""
        for source in sources:
            try:
                hits = source.read_columns(self.columns, truth=False).hits
                yield EventTracks(source.event_id, hits, self.find_tracks(hits))
            except TrackserveError as error:
                yield EventFailure(source.event_id, error)


class EventTracks(NamedTuple):
    """The tracks found in an event."""

    event_id: int
    hits: Hits
    tracks: Tracks


class EventFailure(NamedTuple):
    """An event that could not be read, or whose tracks could not be found."""

    event_id: int
    error: TrackserveError


@contextmanager
def server_finder(
    url: str,
    *,
    timeout: float,
    wait: bool = False,
    wanted: Wanted = LABELS_ONLY,
    compact: float | None = None,
    bundle: str | None = None,
) -> Iterator[Finder]:
    """Yield the finder of a server, given as ``[grpc://|http://]host:port``.

    ``timeout`` is in seconds an event; ``wait`` for a server that is still to start; ``bundle`` names one of
    the server's. Raises the errors of
    :class:`trackserve.client.Client`, and :class:`InputError` where its bundle can't give what is ``wanted``.
    """
    from trackserve.client import Client

    columns = server_columns(url, timeout=timeout, wait=wait, wanted=wanted, bundle=bundle)
    with Client(url, timeout=timeout, compact=compact, bundle=bundle) as client:
        finder = partial(client.find_tracks, **wanted.of_events)
        yield Finder(finder, columns, client.find_tracks_from_features)


def server_columns(
    url: str,
    *,
    timeout: float,
    wait: bool = False,
    wanted: Wanted = LABELS_ONLY,
    bundle: str | None = None,
) -> Sequence[str]:
    """Return the columns of hits that a server takes; raises where it can't give what is wanted."""
    from trackserve.client import Client

    with Client(url, timeout=timeout, wait=wait, bundle=bundle) as client:
        client.description.check(wanted, TRACK_FINDING)
        return client.description.columns


def local_finder(
    bundle: Path | None, *, engine: str = "auto", wanted: Wanted = LABELS_ONLY
) -> Finder:
    """Return the finder of a bundle in this process, on all processor cores that it may use.

    ``bundle`` is a folder, a name that ships, or None for the default. Raises :class:`InputError` where it can't
    give what is ``wanted``.
    """
    from trackserve.bundle import read_bundle
    from trackserve.engines.registry import open_pipeline

    opened = read_bundle(bundle)
    opened.track_stage.chosen(wanted)
    pipeline = open_pipeline(opened, engine=engine, threads=len(os.sched_getaffinity(0)))
    return Finder(
        partial(pipeline.find_tracks, **wanted.of_events),
        opened.features.wire_columns,
        pipeline.find_tracks_from_features,
    )


async def find_concurrently(
    sources: Iterable[EventSource],
    url: str,
    *,
    concurrency: int,
    timeout: float,
    wait: bool = False,
    wanted: Wanted = LABELS_ONLY,
    compact: float | None = None,
    bundle: str | None = None,
) -> AsyncGenerator[EventTracks | EventFailure, None]:
    """Yield the tracks of each event, or why there are none, with up to ``concurrency`` in flight over gRPC.

    Events are read only when a place is free; those that can't be read are yielded when they are met.
    """
    from trackserve.client import AsyncClient

    columns = server_columns(url, timeout=timeout, wait=wait, wanted=wanted, bundle=bundle)
    in_flight: deque[tuple[int, Hits]] = deque()
    unread: deque[EventFailure] = deque()

    def read() -> Iterator[Hits]:
        for source in sources:
            try:
                hits = source.read_columns(columns, truth=False).hits
            except TrackserveError as error:
                unread.append(EventFailure(source.event_id, error))
                continue
            in_flight.append((source.event_id, hits))
            yield hits

    async with AsyncClient(
        url, timeout=timeout, concurrency=concurrency, compact=compact, bundle=bundle
    ) as client:
        async for answer in client.find_all(read(), **wanted.of_events):
            while unread:
                yield unread.popleft()
            event_id, hits = in_flight.popleft()
            if isinstance(answer.outcome, TrackserveError):
                yield EventFailure(event_id, answer.outcome)
            else:
                yield EventTracks(event_id, hits, answer.outcome)
    while unread:
        yield unread.popleft()


def check_distinct(sources: Sequence[EventSource]) -> None:
    """Raise InputError for two events with the same number, which a file of tracks cannot distinguish."""
    seen: dict[int, EventSource] = {}
    for source in sources:
        other = seen.setdefault(source.event_id, source)
        if other is not source:
            message = f"{other} and {source} have the same number; a file of tracks cannot distinguish them"
            raise InputError(message)
