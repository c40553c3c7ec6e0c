"""``trackserve fleet``: several servers behind one address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.cli.guard import add_guard, chosen_guard
from trackserve.cli.options import (
    add_bundles_option,
    add_folder_option,
    chosen_bundles,
    describe_bundles,
    new_command,
)
from trackserve.cli.settings import add_settings, chosen_settings

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "fleet",
        run,
        "Serve a bundle with several tritonservers behind one Envoy until Ctrl-C or SIGTERM.",
        extra="server,fleet",
        epilog="One port serves gRPC and HTTP; servers that fail are left out.",
    )
    parser.add_argument("--servers", type=int, default=2, metavar="N", help="tritonservers")
    add_bundles_option(parser)
    add_settings(parser)
    add_guard(parser)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 picks a free one")
    add_folder_option(parser, "for Envoy's configuration and all logs")


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from trackserve.serving.fleet import Fleet
    from trackserve.serving.process import interrupted_by_sigterm

    bundle, others = chosen_bundles(options)
    settings = chosen_settings(options)
    with (
        interrupted_by_sigterm(),
        Fleet(
            bundle,
            settings,
            others=others,
            guard=chosen_guard(options),
            servers=options.servers,
            folder=options.folder,
            address=options.address,
            port=options.port,
        ) as fleet,
    ):
        print(f"serving bundle {describe_bundles([bundle, *others])} as {settings.shape}")
        print(f"  gRPC     {fleet.urls['grpc']}\n  HTTP     {fleet.urls['http']}")
        print(f"  servers  {options.servers}, logs in {fleet.folder}")
        print("ready; stop with Ctrl-C", flush=True)
        fleet.wait()
