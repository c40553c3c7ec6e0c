"""``trackserve simulate``: events with truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import new_command

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "simulate",
        run,
        "Simulate ttbar events with pileup (Pythia 8, ACTS) in the TrackML detector.",
        extra="sim",
        epilog="Existing events are kept: run the same command again to resume.",
    )
    parser.add_argument("--events", type=int, required=True, metavar="N", help="number of events")
    parser.add_argument(
        "--seed", type=int, required=True, help="the same seed yields the same bytes"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the events"
    )
    parser.add_argument(
        "--conditions",
        choices=("trackml", "hl-lhc"),
        default="trackml",
        help="as in TrackML's events, or with the HL-LHC's pileup and wide beam spot",
    )
    parser.add_argument(
        "--pileup",
        type=float,
        metavar="MU",
        help="mean number of pileup collisions (default: from the conditions)",
    )
    parser.add_argument(
        "--first-event", type=int, default=0, metavar="N", help="first event number"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--form",
        choices=("csv", "csv.gz", "parquet"),
        default="csv.gz",
        help="format of the tables; parquet is smallest and fastest to read",
    )
    _add_detector(parser)


def _add_detector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--noise", type=float, help="share of noise hits (default: from the conditions)"
    )
    parser.add_argument(
        "--field",
        choices=("solenoid", "constant"),
        default="solenoid",
        help="field of a coil, which falls off at its ends, or a constant field",
    )
    parser.add_argument("--field-scale", type=float, default=1.0, help="factor on the 2 T field")
    parser.add_argument(
        "--digitisation",
        choices=("geometric", "smeared"),
        default="geometric",
        help="positions from cells, or true ones smeared by pitch / sqrt(12)",
    )
    parser.add_argument(
        "--dead-modules", type=float, default=0.0, help="share of modules without hits"
    )
    parser.add_argument(
        "--beam-spot-offset",
        type=float,
        nargs=3,
        default=(0.0, 0.0, 0.0),
        metavar=("X", "Y", "Z"),
        help="mean position of the collisions, mm",
    )


def run(options: argparse.Namespace) -> None:
    """Simulate the events."""
    from trackserve.data.simulate import simulate

    simulate(
        options.output,
        events=options.events,
        seed=options.seed,
        conditions=options.conditions,
        pileup=options.pileup,
        first_event=options.first_event,
        workers=options.workers,
        form=options.form,
        noise=options.noise,
        field=options.field,
        field_scale=options.field_scale,
        digitisation=options.digitisation,
        dead_modules=options.dead_modules,
        beam_spot_offset=tuple(options.beam_spot_offset),
    )
