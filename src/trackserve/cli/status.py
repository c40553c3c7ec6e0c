"""``trackserve status``: what a server does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.cli.options import new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "status",
        run,
        "Show what a server runs, how busy it is, what it refused, and where the time goes.",
        epilog="Observes the server for two seconds. For a fleet it shows each server.",
    )
    parser.add_argument("url", metavar="URL", help="the server: [grpc://|http://]host:port")
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help="of the server's metrics, which refusals and a monolith's stages are read from "
        "(default: port 8002 of a server on port 8000 or 8001)",
    )


def run(options: argparse.Namespace) -> None:
    """Print the state of the server."""
    from trackserve.client.status import status_report

    print(status_report(options.url, options.metrics))
