"""``trackserve repository``: a model repository to serve elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_bundles_option, chosen_bundles, new_command
from trackserve.cli.settings import add_settings, chosen_settings

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "repository",
        run,
        "Write the Triton model repository of a bundle, to be served elsewhere.",
        epilog="In NVIDIA's container: tritonserver --model-repository=DIR (see docs/deploying.md).",
    )
    add_bundles_option(parser)
    add_settings(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="new folder"
    )
    parser.add_argument(
        "--environment",
        action="store_true",
        help="copy trackserve and the packages that its models import from this Python into the repository, for a "
        "tritonserver with the same version of Python and no trackserve installed (see docs/gpu.md)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the repository and print its folder."""
    from trackserve.serving.repository import write_repository

    settings = chosen_settings(options)
    bundle, others = chosen_bundles(options)
    served = [(each, settings) for each in others]
    print(
        write_repository(
            bundle, options.output, settings, others=served, environment=options.environment
        )
    )
