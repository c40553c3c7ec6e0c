"""``trackserve find``: the tracks of events, in a file."""

from __future__ import annotations

import asyncio
import contextlib
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
)
from trackserve.cli.output import check_place, written

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from trackserve.cli.options import Subparsers
    from trackserve.data import EventSource
    from trackserve.data.submission import TrackWriter


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "find",
        run,
        "Find the tracks of events and write event_id,hit_id,track_id (TrackML's submission).",
        epilog="""examples:
  trackserve find events/ --server localhost:8001 --concurrency 8 -o tracks.csv
  trackserve find event000000020-hits.csv.gz --local | head""",
    )
    add_events(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--server", default="localhost:8001", metavar="URL", help="[grpc://|http://]host:port"
    )
    place.add_argument("--local", action="store_true", help="in this process, without a server")
    add_bundle_option(parser, "with --local: ")
    add_engine_option(parser, "with --local: ", default=None)
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="events under way at a time, from a server over gRPC (default: 1); "
        "two for each of the server's instances keep it busy",
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds an event")
    parser.add_argument("-o", "--output", type=Path, help="CSV file (default: standard output)")


def run(options: argparse.Namespace) -> None:
    """Find the tracks and write them."""
    from trackserve.data.submission import TrackWriter
    from trackserve.finding import check_distinct, local_finder, server_finder

    if options.local:
        refuse(options, ("concurrency",), "--server")
    else:
        refuse(options, ("bundle", "engine"), "--local; a server has its own")
    check_place(options.output)
    sources = find_sources(options.events)
    check_distinct(sources)
    bar = progress(sources, "find")
    with contextlib.ExitStack() as stack:
        if options.concurrency is None:
            finder = (
                local_finder(options.bundle, engine=options.engine or "auto")
                if options.local
                else stack.enter_context(server_finder(options.server, timeout=options.timeout))
            )
            writer = TrackWriter(stack.enter_context(written(options.output)))
            for found in finder.find_all(bar):
                writer.write(*found)
        else:
            writer = TrackWriter(stack.enter_context(written(options.output)))
            asyncio.run(_write_concurrently(bar, options, writer))


async def _write_concurrently(
    sources: Iterable[EventSource], options: argparse.Namespace, writer: TrackWriter
) -> None:
    from trackserve.finding import find_concurrently

    events = find_concurrently(
        sources, options.server, concurrency=options.concurrency, timeout=options.timeout
    )
    async for found in events:
        writer.write(*found)
