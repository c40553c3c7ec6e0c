"""``trackserve draw``: a picture of an event and its tracks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.answers import add_answer_options, open_answers
from trackserve.cli.options import add_events, find_sources, new_command, progress
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "draw",
        run,
        "Draw the tracks of events along the beam and from the side, as PNG; missed particles dotted.",
        epilog="""examples:
  trackserve draw examples/events/pu20 -o pu20.png
  trackserve draw events/ --server localhost:8001 -o pictures""",
        extra="plot,engines",
    )
    add_events(parser)
    add_answer_options(parser)
    parser.add_argument(
        "--limit", type=int, default=400, metavar="N", help="maximum tracks drawn, highest pT first"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PNG",
        required=True,
        help="picture of one event, or a folder for one picture per event",
    )


def run(options: argparse.Namespace) -> None:
    """Draw the events and print the names of the pictures."""
    from trackserve.evaluate.display import draw_event

    sources = find_sources(options.events)
    pictures = _pictures(options.output, [source.event_id for source in sources])
    with open_answers(options) as answers:
        for source, picture in zip(progress(sources, "draw"), pictures, strict=True):
            event, tracks = answers.read(source)
            title = f"event {event.event_id}"
            draw_event(
                event.hits, tracks, picture, truth=event.truth, title=title, limit=options.limit
            )
            print(picture)


def _pictures(output: Path, events: list[int]) -> list[Path]:
    """Return the path of each event's picture; raises :class:`InputError` for an unusable name."""
    if output.suffix.lower() == ".png":
        if len(events) > 1:
            message = f"{output} is one picture for {len(events)} events; name a folder with -o"
            raise InputError(message)
        if not output.parent.is_dir():
            message = f"folder {output.parent} does not exist; create it, or write {output.name} elsewhere"
            raise InputError(message)
        return [output]
    if output.suffix and not output.is_dir():
        message = f"{output} is neither a .png nor a folder; pictures are written as PNG"
        raise InputError(message)
    output.mkdir(parents=True, exist_ok=True)
    return [output / f"event{event:09d}.png" for event in events]
