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
        "Write a copy of a bundle that can be computed in 8 bits, which training does by itself.",
        epilog="Its filter and its triplet classifier get the ranges of their activations.",
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
