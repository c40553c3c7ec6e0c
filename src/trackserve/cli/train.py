"""``trackserve train``: a bundle from events with truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import new_command
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "train",
        run,
        "Train the four networks on events with truth and write a bundle.",
        extra="train",
        epilog="Progress is kept in BUNDLE.training: run the same command again to resume.",
    )
    parser.add_argument(
        "data",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="folders or .zip files of events with truth",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="folder")
    parser.add_argument(
        "--recipe",
        default="hl-lhc",
        help="name of a shipped recipe, or a TOML file that inherits from its `base` (default: hl-lhc)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--validation",
        type=Path,
        metavar="DIR",
        help="events for choosing radius, cuts and the quality of tracks (default: a share of DATA)",
    )
    parser.add_argument(
        "--test",
        type=Path,
        metavar="DIR",
        help="events for measuring the bundle; needs --validation",
    )
    parser.add_argument(
        "--networks",
        type=Path,
        metavar="BUNDLE",
        help="keep the networks of this bundle; only choose radius, cuts and the quality of tracks",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="BUNDLE",
        help="start the networks in the recipe's `start` from the weights of this bundle",
    )


def run(options: argparse.Namespace) -> None:
    """Train and print the folder of the bundle."""
    from trackserve.training.recipe import read_recipe, recipe_changes
    from trackserve.training.train import train

    if (options.validation is None) != (options.test is None):
        message = "--validation and --test need each other; give both or neither"
        raise InputError(message)
    recipe = read_recipe(options.recipe)
    base, changes = recipe_changes(options.recipe)
    if base is not None:
        print(f"recipe: {base} with {', '.join(changes) or 'no change'}", file=sys.stderr)
    if recipe.like:
        print(f"like {recipe.like}: its fit, how it builds tracks, its budget", file=sys.stderr)
    apart = None if options.test is None else (options.validation, options.test)
    train(
        options.data,
        options.output,
        recipe,
        device=options.device,
        apart=apart,
        networks=options.networks,
        start=options.start,
    )
    print(options.output)
