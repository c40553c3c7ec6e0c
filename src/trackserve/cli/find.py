"""``trackserve find``: the tracks of events, in a file."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import (
    add_bundle_option,
    add_engine_option,
    add_events,
    find_sources,
    new_command,
    progress,
    refuse,
    served_bundle,
)
from trackserve.cli.output import check_place
from trackserve.contract.compact import STEP
from trackserve.contract.wanted import Wanted
from trackserve.data.columnar import SUFFIXES, suffix_of
from trackserve.errors import InputError, ServerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from trackserve.cli.options import Subparsers
    from trackserve.data import EventSource
    from trackserve.data.submission import TrackFiles
    from trackserve.finding import EventFailure, EventTracks


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "find",
        run,
        "Find the tracks of events and write event_id, hit_id, track_id (TrackML's submission).",
        epilog="""examples:
  trackserve find events/ --server localhost:8001 --concurrency 8 -o tracks.csv
  trackserve find events/ -o tracks.parquet --parameters parameters.parquet --min-quality 0.5
  trackserve find event000000020-hits.csv.gz --local | head""",
    )
    add_events(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--server", default="localhost:8001", metavar="URL", help="[grpc://|http://]host:port"
    )
    place.add_argument("--local", action="store_true", help="in this process, without a server")
    add_bundle_option(parser, server="from a server")
    add_engine_option(parser, "with --local: ", default=None)
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="events in flight, from a server over gRPC (default: 1); "
        "two for each of the server's instances keep it busy",
    )
    parser.add_argument(
        "--compact",
        type=float,
        nargs="?",
        const=STEP,
        metavar="MM",
        help=f"send hits and receive labels in half the bytes, positions rounded to this (default: {STEP:g} mm)",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds per event"
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a server that has not started yet, up to the timeout",
    )
    parser.add_argument(
        "--trace",
        metavar="URL",
        help="OpenTelemetry collector for a span of each event, such as http://localhost:4318",
    )
    _add_outputs(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of failures and of tracks."""
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="continue after an event that fails, and exit with status 1 at the end",
    )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="FILE",
        help=f"{', '.join(SUFFIXES)}, by its suffix (default, and for -: CSV to standard output)",
    )
    parser.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="write the fitted parameters, one row per track, to a file of one of these formats; "
        "all but CSV also list the track's hits",
    )
    parser.add_argument(
        "--min-quality",
        type=float,
        metavar="Q",
        help="drop tracks of a lower quality, a number in [0, 1): fewer fakes, and fewer particles "
        "found (default: the bundle's)",
    )


def run(options: argparse.Namespace) -> None:
    """Find the tracks and write them."""
    from trackserve.data.submission import TrackFiles
    from trackserve.finding import check_distinct

    if options.local:
        refuse(options, ("concurrency", "compact", "trace"), "--server")
    else:
        refuse(options, ("engine",), "--local; a server uses its own")
    check_files(options.output, options.parameters)
    wanted = Wanted(options.parameters is not None, options.min_quality)
    sources = find_sources(options.events)
    check_distinct(sources)
    with (
        TrackFiles.open(options.output, options.parameters) as files,
        contextlib.closing(progress(sources, "find")) as bar,
        _traced(options.trace),
    ):
        outcome = _Outcome(files, keep_going=options.keep_going)
        if options.concurrency is None:
            _find_in_turn(bar, options, wanted, outcome)
        else:
            asyncio.run(_find_concurrently(bar, options, wanted, outcome))
        if not outcome.found:  # a file that is there stays
            outcome.check()
    outcome.check()


def _traced(collector: str | None) -> contextlib.AbstractContextManager[None]:
    """Return a context in which spans go to a collector, if one is given."""
    from trackserve.client.tracing import tracing_to

    return (
        contextlib.nullcontext() if collector is None else tracing_to(collector, "trackserve-find")
    )


class _Outcome:
    """Writes the tracks of each event that goes well, and remembers those that don't."""

    def __init__(self, files: TrackFiles, *, keep_going: bool) -> None:
        self._files, self._keep_going = files, keep_going
        self.found = 0
        self._failures: list[EventFailure] = []

    def take(self, event: EventTracks | EventFailure) -> bool:
        """Take what became of an event and return whether to go on."""
        from trackserve.finding import EventTracks

        if isinstance(event, EventTracks):
            self._files.write(*event)
            self.found += 1
            return True
        self._failures.append(event)
        if self._keep_going:
            print(f"event {event.event_id}: {event.error}", file=sys.stderr)
        return self._keep_going

    def check(self) -> None:
        """Raise what stopped the run, or, at the end of one that went on, how many events failed."""
        if not self._failures:
            return
        if self._keep_going:
            failed = ", ".join(str(failure.event_id) for failure in self._failures)
            message = f"{len(self._failures)} of {len(self._failures) + self.found} events failed: {failed}"
            raise ServerError(message)
        error = self._failures[0].error
        if self.found:
            error.args = (f"{error} (the tracks of the {self.found} events before it are written)",)
        raise error


def check_files(output: Path | None, parameters: Path | None) -> None:
    """Raise before the work unless the files can be written, each in its format."""
    for path in (output, parameters):
        if path is not None and str(path) != "-":
            check_place(path)
            suffix_of(path)
    if parameters is not None and str(parameters) in {"-", str(output)}:
        message = f"--parameters is {parameters}; expected a file of its own"
        raise InputError(message)


def _find_in_turn(
    sources: Iterable[EventSource],
    options: argparse.Namespace,
    wanted: Wanted,
    outcome: _Outcome,
) -> None:
    from trackserve.finding import local_finder, server_finder

    with contextlib.ExitStack() as stack:
        if options.local:
            finder = local_finder(options.bundle, engine=options.engine or "auto", wanted=wanted)
        else:
            finder = stack.enter_context(
                server_finder(
                    options.server,
                    timeout=options.timeout,
                    wait=options.wait,
                    wanted=wanted,
                    compact=options.compact,
                    bundle=served_bundle(options),
                )
            )
        for event in finder.find_all(sources):
            if not outcome.take(event):
                return


async def _find_concurrently(
    sources: Iterable[EventSource],
    options: argparse.Namespace,
    wanted: Wanted,
    outcome: _Outcome,
) -> None:
    from trackserve.finding import find_concurrently

    events = find_concurrently(
        sources,
        options.server,
        concurrency=options.concurrency,
        timeout=options.timeout,
        wait=options.wait,
        wanted=wanted,
        compact=options.compact,
        bundle=served_bundle(options),
    )
    async with contextlib.aclosing(events):
        async for event in events:
            if not outcome.take(event):
                return
