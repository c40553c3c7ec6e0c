"""``trackserve roll``: another bundle for a running fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.cli.options import add_folder_option, new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "roll",
        run,
        "Roll a running fleet to another bundle, one server at a time.",
        epilog="No client sees an error. If the new bundle cannot be served, the old servers continue.",
    )
    parser.add_argument(
        "bundle",
        metavar="[NAME=]BUNDLE",
        help="the new bundle: it takes the place of the one of its name, else of the first",
    )
    add_folder_option(parser, "of the fleet")


def run(options: argparse.Namespace) -> None:
    """Replace the servers of the fleet."""
    from trackserve.serving.fleet.control import roll

    print(roll(options.folder, options.bundle))
