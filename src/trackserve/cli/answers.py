"""Options for where a command gets tracks: the pipeline in process, a server, or a file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_bundle_option, add_engine_option, refuse, served_bundle
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from trackserve.data import EventSource
    from trackserve.event import Event, Tracks
    from trackserve.finding import Finder


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
    add_bundle_option(parser, server="with --server")
    add_engine_option(parser, "in process: ", default=None)
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds per event"
    )


@contextlib.contextmanager
def open_answers(options: argparse.Namespace) -> Iterator[Answers]:
    """Yield the chosen source of tracks, with fitted parameters if it has them."""
    if options.tracks is not None:
        refuse(options, ("bundle",), "the pipeline in process, or --server")
    if options.server is not None or options.tracks is not None:
        refuse(options, ("engine",), "the pipeline in process, not --server or --tracks")
    if options.tracks is not None:
        yield _of_file(options.tracks)
        return
    with contextlib.ExitStack() as stack:
        try:
            finder = stack.enter_context(_finder(options, Wanted(parameters=True)))
        except InputError:  # a bundle without a fit; whatever else is wrong is raised again
            finder = stack.enter_context(_finder(options, LABELS_ONLY))
        yield Answers(finder.columns, lambda event: finder.find_tracks(event.hits))


def _of_file(path: Path) -> Answers:
    from trackserve.data.submission import read_tracks

    submission = read_tracks(path)
    return Answers((), lambda event: submission.tracks_of(event)[0])


def _finder(options: argparse.Namespace, wanted: Wanted) -> AbstractContextManager[Finder]:
    from trackserve.finding import local_finder, server_finder

    if options.server is not None:
        bundle = served_bundle(options)
        return server_finder(options.server, timeout=options.timeout, wanted=wanted, bundle=bundle)
    return contextlib.nullcontext(
        local_finder(options.bundle, engine=options.engine or "auto", wanted=wanted)
    )
