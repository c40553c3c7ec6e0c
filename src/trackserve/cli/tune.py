"""``trackserve tune``: the settings that serve best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_bundle_option, add_events, find_sources, new_command
from trackserve.contract.description import PRECISIONS
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    from trackserve.engines.registry import names

    parser = new_command(
        commands,
        "tune",
        run,
        "Search for the settings that serve best on this machine; write them and a report.",
        epilog="""examples:
  trackserve tune events/ --p99 100 -o tuning      most events per second with p99 below 100 ms
  trackserve tune events/ --rate 20 -o tuning      lowest p99 at 20 events per second
  trackserve serve --settings tuning/settings.toml

Trials in the folder are reused: run the same command again to resume.""",
        extra="server,plot",
    )
    add_events(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--p99", type=float, default=0.0, metavar="MS", help="maximum p99, ms")
    goal.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="events per second")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for trials and report",
    )
    add_bundle_option(parser)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="maximum trials")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=names(),
        help="engines to try, starting with the first (default: all on this machine)",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("bundle", *PRECISIONS),
        default=("bundle",),
        help="precisions to try; other ones than the bundle's change the tracks slightly",
    )


def run(options: argparse.Namespace) -> None:
    """Search the settings and write the report."""
    from trackserve.bundle import read_bundle
    from trackserve.engines.registry import available
    from trackserve.load.tune import Goal, Tuning
    from trackserve.load.tune_report import write_report

    bundle = read_bundle(options.bundle)
    sources = find_sources(options.events)
    columns = bundle.features.wire_columns
    tuning = Tuning(
        bundle,
        [source.read_columns(columns, truth=False).hits for source in sources],
        Goal(p99=options.p99 / 1000, rate=options.rate),
        options.output,
        seconds=options.seconds,
        trials=options.trials,
        engines=tuple(options.engines or available()),
        precisions=tuple(options.precisions),
    )
    trials = tuning.search()
    for path in write_report(tuning, trials):
        print(path)
    if tuning.best(trials) is None:
        message = f"no settings reach {tuning.goal}; the report lists the trials"
        raise InputError(message)
