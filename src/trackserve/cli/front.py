"""``trackserve front``: one address for servers on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.guard import add_guard, chosen_guard
from trackserve.cli.options import (
    add_bundles_option,
    add_register_option,
    chosen_bundles,
    new_command,
)
from trackserve.cli.settings import add_settings, chosen_settings

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers
    from trackserve.serving.fleet.remote import RemoteFleet


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "front",
        run,
        "Put one Envoy in front of servers on other machines until Ctrl-C or SIGTERM.",
        extra="server,fleet",
        epilog="Bundle and serving options are those of the servers, which `trackserve serve` runs.",
    )
    parser.add_argument(
        "--servers",
        required=True,
        metavar="PATH|NAME:PORT",
        help="a file of host:port lines, a folder of such files, or a DNS name with an address a server",
    )
    group = parser.add_argument_group("what the servers ask for")
    group.add_argument(
        "--server-ca", type=Path, metavar="PEM", help="they speak TLS; the authority to trust"
    )
    group.add_argument(
        "--server-name", default="", metavar="HOST", help="DNS name in all their certificates"
    )
    group.add_argument(
        "--server-token", type=Path, metavar="FILE", help="file with the front's token for them"
    )
    add_bundles_option(parser)
    add_settings(parser)
    add_guard(parser)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 picks a free one")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("front"),
        metavar="DIR",
        help="folder for Envoy's configuration and logs",
    )
    add_register_option(parser)


def front_of(options: argparse.Namespace) -> RemoteFleet:
    """Return the front that the options ask for, to be entered."""
    from trackserve.serving.fleet.remote import RemoteFleet
    from trackserve.serving.guard.remote import Remote

    bundle, others = chosen_bundles(options)
    return RemoteFleet(
        options.servers,
        bundle,
        chosen_settings(options),
        others=others,
        guard=chosen_guard(options),
        remote=Remote(options.server_ca, options.server_name, options.server_token),
        folder=options.folder,
        address=options.address,
        port=options.port,
    )


def run(options: argparse.Namespace) -> None:
    """Pass requests on until Ctrl-C or SIGTERM."""
    from trackserve.serving.fleet.registered import registered
    from trackserve.serving.process import interrupted_by_sigterm

    with (
        interrupted_by_sigterm(),
        front_of(options) as front,
        registered(options.register, options.address, int(front.address.rpartition(":")[2])),
    ):
        print(front.status())  # with what is wrong with the list, if anything is
        print(f"  gRPC     {front.urls['grpc']}\n  HTTP     {front.urls['http']}")
        print(f"  logs in {front.folder}\nready; stop with Ctrl-C", flush=True)
        front.wait()
