"""``trackserve info``: what this installation has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.cli.options import new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    new_command(
        commands,
        "info",
        run,
        "Show this installation: engines, processor, bundles, optional parts.",
    )


def run(options: argparse.Namespace) -> None:
    """Print the facts."""
    del options
    from trackserve.installation import installation_report

    print(installation_report())
