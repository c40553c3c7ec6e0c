"""``trackserve plan``: how many servers a rate of events needs."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trackserve.cli.options import (
    add_bundle_option,
    add_engine_option,
    find_sources,
    new_command,
    progress,
    refuse,
)
from trackserve.cli.output import check_place, written
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "plan",
        run,
        "Compute how many servers hold a rate below a latency, and what a failure, a roll or a burst costs.",
        epilog="""examples:
  trackserve plan events/ --rate 1000 --p99 2              events measured here, on one core
  trackserve plan --seconds 0.35 --rate 100000 --p99 2     events that take a core 0.35 s""",
    )
    parser.add_argument(
        "events",
        type=Path,
        nargs="*",
        metavar="EVENT",
        help="events whose time is measured here, on one core",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        metavar="S",
        help="times of one core for an event, instead of events",
    )
    parser.add_argument("--rate", type=float, required=True, metavar="HZ", help="events a second")
    parser.add_argument(
        "--p99", type=float, required=True, metavar="S", help="the longest p99 of the latency, s"
    )
    _add_assumptions(parser)
    add_bundle_option(parser)
    add_engine_option(parser, default=None)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number")


def _add_assumptions(parser: argparse.ArgumentParser) -> None:
    """Add what is assumed of servers and load."""
    parser.add_argument("--cores", type=int, default=16, metavar="N", help="cores of a server")
    parser.add_argument(
        "--headroom",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the cores that is idle on average",
    )
    parser.add_argument("--spare", type=int, default=1, metavar="N", help="spare servers")
    parser.add_argument(
        "--overhead",
        type=float,
        default=0.003,
        metavar="S",
        help="time that serving adds to an event, s",
    )
    parser.add_argument(
        "--burst",
        type=float,
        default=10.0,
        metavar="S",
        help="length of a burst of twice the rate, s",
    )
    parser.add_argument(
        "--roll",
        type=float,
        default=30.0,
        metavar="S",
        help="time that a server is out during a roll, s",
    )


def run(options: argparse.Namespace) -> None:
    """Print the plan."""
    from trackserve.load.plan import Demand, make_plan, table

    for name in ("cores", "spare", "burst", "roll", "overhead"):
        least = 1 if name == "cores" else 0
        if not getattr(options, name) >= least:
            message = f"--{name} is {getattr(options, name)}; expected at least {least}"
            raise InputError(message)
    if not 0 <= options.headroom < 1:
        message = f"--headroom is {options.headroom}; expected a share from 0 to below 1"
        raise InputError(message)
    if bool(options.events) == bool(options.seconds):
        message = "give events, whose time is measured here, or --seconds: one of them"
        raise InputError(message)
    check_place(options.json)
    if options.seconds:
        refuse(options, ("bundle", "engine"), "events that are measured")
    times = options.seconds or _measured(options)
    demand = Demand(options.rate, options.p99, np.array(times) + options.overhead)
    plan = make_plan(
        demand,
        options.cores,
        headroom=options.headroom,
        spare=options.spare,
        burst=options.burst,
        roll=options.roll,
    )
    print(table(plan))
    if options.json is not None:
        with written(options.json) as file:
            file.write(json.dumps({**asdict(plan), "cores": plan.cores}, indent=1) + "\n")


def _measured(options: argparse.Namespace) -> list[float]:
    """Return the time of one core for each event, s; the second of two, when memory is there."""
    from trackserve.bundle import read_bundle
    from trackserve.engines.registry import open_pipeline

    bundle = read_bundle(options.bundle)
    pipeline = open_pipeline(bundle, engine=options.engine or "auto", threads=1)
    times = []
    for source in progress(find_sources(options.events), "measure"):
        hits = source.read_columns(bundle.features.wire_columns, truth=False).hits
        pipeline.find_tracks(hits)
        began = time.perf_counter()
        pipeline.find_tracks(hits)
        times.append(time.perf_counter() - began)
    return times
