"""``trackserve bundle``: show, check or adopt a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli import adopt
from trackserve.cli.options import Formatter, new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands, "bundle", show, "Show or check a bundle, or make one of other networks."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (
        ("show", show, "Print the description of a bundle."),
        (
            "check",
            check,
            "Read a bundle, run it on no hits and on a few, and report whether it is valid.",
        ),
    ):
        action = actions.add_parser(name, help=text, description=text, formatter_class=Formatter)
        action.set_defaults(run=run)
        action.add_argument(
            "bundle",
            type=Path,
            nargs="?",
            help="folder, or the name of one that ships (default: trackml)",
        )
    adopt.add(actions)


def show(options: argparse.Namespace) -> None:
    """Print the description of the bundle."""
    from trackserve.bundle import BUNDLE_FILE, read_bundle

    bundle = read_bundle(options.bundle)
    print(f"# {bundle.path}  digest {bundle.digest()}")
    print((bundle.path / BUNDLE_FILE).read_text(encoding="utf-8"), end="")


def check(options: argparse.Namespace) -> None:
    """Check the bundle and print its digest."""
    from trackserve.bundle import read_bundle
    from trackserve.pipeline.check import check_answers

    bundle = read_bundle(options.bundle)
    check_answers(bundle)
    print(f"{bundle.path}: valid, digest {bundle.digest()}")
