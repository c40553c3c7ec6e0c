"""``trackserve calibrate``: a bundle that can be computed in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_events, find_sources, new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "calibrate",
        run,
        "Add activation ranges to a copy of a bundle, so that it can run in 8 bits.",
        epilog="Measures the ranges of filter and triplet classifier on the events. Training does so itself.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder")
    add_events(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NEW", help="folder")


def run(options: argparse.Namespace) -> None:
    """Write the new bundle and print its folder."""
    from trackserve.bundle import read_bundle
    from trackserve.training.calibrate import calibrate

    sources = find_sources(options.events)
    calibrate(read_bundle(options.bundle), sources, options.output)
    print(options.output)
