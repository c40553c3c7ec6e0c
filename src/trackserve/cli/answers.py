"""Options for where a command gets tracks: the pipeline in process, a server, or a file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_bundle_option, add_engine_option, refuse
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from trackserve.data import EventSource
    from trackserve.event import Event, Tracks


@dataclass(frozen=True)
class Answers:
    """Reads an event with its truth, and answers with its tracks."""

    columns: Sequence[str]
    tracks_of: Callable[[Event], Tracks]

    def read(self, source: EventSource) -> tuple[Event, Tracks]:
        """Return an event and its tracks; modules are read too where the source has them."""
        event = source.read_columns(self.columns)
        return event, self.tracks_of(event)


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Add the places that tracks come from."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--server", metavar="URL", help="tracks from this server (default: found in process)"
    )
    place.add_argument(
        "--tracks", type=Path, metavar="CSV", help="tracks from this file, as `find` writes it"
    )
    add_bundle_option(parser, "in process: ")
    add_engine_option(parser, "in process: ", default=None)
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds per event"
    )


@contextlib.contextmanager
def open_answers(options: argparse.Namespace) -> Iterator[Answers]:
    """Yield what answers, as the options say; fitted parameters come with the tracks where they can."""
    if options.server is not None or options.tracks is not None:
        refuse(options, ("bundle", "engine"), "the pipeline in process, not --server or --tracks")
    if options.tracks is not None:
        yield _of_file(options.tracks)
    elif options.server is not None:
        yield from _of_server(options.server, options.timeout)
    else:
        yield _in_process(options.bundle, options.engine or "auto")


def _of_file(path: Path) -> Answers:
    from trackserve.data.submission import read_tracks

    submission = read_tracks(path)
    return Answers((), lambda event: submission.tracks_of(event)[0])


def _of_server(url: str, timeout: float) -> Iterator[Answers]:
    from trackserve.client import Client

    with Client(url, timeout=timeout) as client:
        yield Answers(client.description.columns, lambda event: client.find_tracks(event.hits))


def _in_process(folder: Path | None, engine: str) -> Answers:
    from trackserve.bundle import read_bundle
    from trackserve.engines.registry import open_pipeline

    bundle = read_bundle(folder)
    pipeline = open_pipeline(bundle, engine=engine, threads=len(os.sched_getaffinity(0)))
    try:
        bundle.track_stage.check_parameters()
        fitted = True
    except InputError:
        fitted = False
    return Answers(
        bundle.features.wire_columns,
        lambda event: pipeline.find_tracks(event.hits, parameters=fitted),
    )
