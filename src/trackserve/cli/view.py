"""``trackserve view``: an event and its tracks in three dimensions, in a browser."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.answers import Answers, add_answer_options, open_answers
from trackserve.cli.options import add_events, find_sources, new_command, progress
from trackserve.cli.output import check_place
from trackserve.errors import InputError
from trackserve.files import write_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from trackserve.cli.options import Subparsers
    from trackserve.data import EventSource

MOST_INSIDE = 20
"""Events in one page; each takes 2 to 5 MB at pileup 200."""


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "view",
        run,
        "Show events and their tracks in a browser; without -o from a server on this machine.",
        epilog="""examples:
  trackserve view examples/events/pu200 --server localhost:8001
  trackserve view examples/events/pu200 -o event.html      a page to keep or send
  trackserve view examples/events/pu200 -o event.json      for Phoenix, HSF's event display""",
    )
    add_events(parser)
    add_answer_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f".html: a page with up to {MOST_INSIDE} events; .json: events for Phoenix",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of the page without -o; 0 picks a free one"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def run(options: argparse.Namespace) -> None:
    """Write the page, or serve it until Ctrl-C."""
    sources = find_sources(options.events)
    if options.output is not None:
        _check(options.output, len(sources))
    with open_answers(options) as answers:
        if options.output is None:
            _serve(options, sources, answers)
        elif options.output.suffix == ".html":
            _write_page(options.output, sources, answers)
        else:
            _write_phoenix(options.output, sources, answers)


def _check(output: Path, events: int) -> None:
    check_place(output)
    if output.suffix not in (".html", ".json"):
        message = f"{output} is neither .html (a page) nor .json (events for Phoenix)"
        raise InputError(message)
    if events > MOST_INSIDE:
        message = (
            f"{events} events are too many for one file (at most {MOST_INSIDE}); "
            "without -o the page shows them one by one"
        )
        raise InputError(message)


def _write_page(output: Path, sources: Sequence[EventSource], answers: Answers) -> None:
    from trackserve.view.page import event_page

    blocks = [_block(source, answers) for source in progress(sources, "view")]
    write_text(output, event_page(blocks))
    print(output)


def _write_phoenix(output: Path, sources: Sequence[EventSource], answers: Answers) -> None:
    from trackserve.view.phoenix import phoenix_events

    events = phoenix_events(answers.read(source) for source in progress(sources, "view"))
    write_text(output, json.dumps(events, separators=(",", ":")))
    print(output)


def _block(source: EventSource, answers: Answers) -> bytes:
    from trackserve.view.scene import pack_scene

    event, tracks = answers.read(source)
    return pack_scene(f"event {event.event_id}", event, tracks)


def _serve(options: argparse.Namespace, sources: Sequence[EventSource], answers: Answers) -> None:
    from trackserve.view.live import LiveDisplay

    names = [f"event {source.event_id}" for source in sources]
    with LiveDisplay(names, lambda place: _block(sources[place], answers), options.port) as display:
        print(f"{len(sources)} events at {display.url}; stop with Ctrl-C", flush=True)
        if not options.no_browser and sys.stdout.isatty():
            webbrowser.open(display.url)
        try:
            display.serve_forever()
        except KeyboardInterrupt:
            print()
