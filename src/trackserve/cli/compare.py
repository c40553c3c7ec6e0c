"""``trackserve compare``: two bundles, servers or files of tracks on the same events."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_engine_option, find_sources, new_command, progress
from trackserve.cli.output import check_place, written
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from trackserve.cli.options import Subparsers
    from trackserve.evaluate.compare import Side

WHAT = "a bundle's folder or name, a server as [NAME@][grpc://|http://]host:port, or a file that `find` wrote"
PAGES = (".md", ".html")


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "compare",
        run,
        "Compare two track finders on events with truth: physics with paired intervals, particles that only one "
        "finds, speed in turn.",
        epilog="""examples:
  trackserve compare trackml trackml-fast examples/events/pu20 -o page.html
  trackserve compare localhost:8001 runs/7 events/ -o page.md
  trackserve compare trackml@localhost:8001 new@localhost:8001 events/""",
    )
    parser.add_argument("a", metavar="A", help=WHAT)
    parser.add_argument("b", metavar="B", help="as A")
    parser.add_argument(
        "events",
        type=Path,
        nargs="+",
        metavar="EVENT",
        help="a folder or .zip of events with truth, or a file of one event",
    )
    add_engine_option(parser, "bundles: ", default="auto")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="servers: seconds per event"
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="CONDITION",
        help="further targets, as with `evaluate`",
    )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="PAGE",
        help=f"{' or '.join(PAGES)}, by its suffix (default: Markdown to standard output)",
    )


def run(options: argparse.Namespace) -> None:
    """Compare and write the page."""
    from trackserve.evaluate.compare import compare
    from trackserve.evaluate.compare_page import as_html, as_markdown
    from trackserve.evaluate.targets import OwnTargets
    from trackserve.finding import check_distinct

    suffix = PAGES[0] if options.output is None else options.output.suffix.lower()
    if suffix not in PAGES:
        message = f"{options.output} has the suffix {suffix!r}; expected {' or '.join(PAGES)}"
        raise InputError(message)
    check_place(options.output)
    own = [OwnTargets(condition) for condition in dict.fromkeys(options.target)]
    sources = find_sources(options.events)
    check_distinct(sources)
    with contextlib.ExitStack() as stack:
        (a, columns), (b, more) = (_open(each, options, stack) for each in (options.a, options.b))
        every = tuple(dict.fromkeys((*columns, *more)))
        events = (source.read_columns(every) for source in progress(sources, "compare"))
        result = compare(events, a, b, own)
    page = as_html(result) if suffix == ".html" else as_markdown(result)
    with written(options.output) as file:
        file.write(page)


def _open(
    text: str, options: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[Side, Sequence[str]]:
    """Return a finder and the columns of hits that it takes."""
    from trackserve.bundle import BUNDLE_FILE, shipped_bundles
    from trackserve.data.submission import read_tracks
    from trackserve.evaluate.compare import Side
    from trackserve.finding import local_finder, server_finder

    path = Path(text)
    if (path / BUNDLE_FILE).is_file() or text in {each.name for each in shipped_bundles()}:
        finder = local_finder(path, engine=options.engine)
    elif path.is_file():
        submission = read_tracks(path)
        return Side(text, lambda event: submission.tracks_of(event)[0], timed=False), ()
    elif ":" in text:
        name, _, url = text.rpartition("@")
        finder = stack.enter_context(
            server_finder(url, timeout=options.timeout, bundle=name or None)
        )
    else:
        shipped = ", ".join(each.name for each in shipped_bundles())
        message = f"{text!r} is nothing to compare; expected {WHAT} (bundles that ship: {shipped})"
        raise InputError(message)
    return Side(text, lambda event: finder.find_tracks(event.hits)), finder.columns
