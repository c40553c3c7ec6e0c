"""``trackserve serve``: one server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.guard import add_guard, chosen_guard
from trackserve.cli.options import (
    add_bundles_option,
    add_register_option,
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
        "serve",
        run,
        "Serve a bundle with tritonserver until Ctrl-C or SIGTERM.",
        extra="server",
        epilog="The server listens on 127.0.0.1 unless --address names another address.",
    )
    add_bundles_option(parser)
    add_settings(parser)
    add_guard(parser)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    for protocol, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{protocol}-port", type=int, default=port, help="port; 0 picks a free one"
        )
    parser.add_argument("--log", type=Path, help="file for the server's log")
    add_register_option(parser)


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from trackserve.bundle.foreign import slow_networks_text
    from trackserve.serving.fleet.registered import registered
    from trackserve.serving.process import interrupted_by_sigterm
    from trackserve.serving.service import serve

    bundle, others = chosen_bundles(options)
    settings = chosen_settings(options)
    with (
        interrupted_by_sigterm(),
        serve(
            bundle,
            settings,
            others=others,
            guard=chosen_guard(options),
            address=options.address,
            http_port=options.http_port,
            grpc_port=options.grpc_port,
            metrics_port=options.metrics_port,
            log=options.log,
        ) as server,
        registered(options.register, options.address, server.ports["grpc"]),
    ):
        print(f"serving bundle {describe_bundles([bundle, *others])} as {settings.shape}")
        for each in (bundle, *others):
            if slow := slow_networks_text(each):
                print(f"  slow     {slow}")
        print(f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}")
        print(f"  metrics  {server.metrics_url}\nready; stop with Ctrl-C", flush=True)
        server.wait()
