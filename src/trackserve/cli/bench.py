"""``trackserve bench``: throughput and latency under load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from trackserve.cli.options import (
    add_bundle_option,
    add_engine_option,
    add_events,
    find_sources,
    new_command,
    refuse,
    served_bundle,
)
from trackserve.cli.output import check_place, written
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trackserve.cli.options import Subparsers
    from trackserve.event import Hits, Int64
    from trackserve.load.load import Events, Load


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "bench",
        run,
        "Load a server and report throughput, latency and where the time went.",
        epilog="""examples:
  trackserve bench localhost:8001 events/ --concurrency 1 2 4 8 --plots plots/
  trackserve bench http://localhost:8000 events/ --rate 20 --seconds 60 --check
  trackserve bench localhost:8001 small/ large/ --weights 9 1 --shared-memory
  trackserve bench localhost:8001 scaled.npy --features

Latency counts from the moment an event was due until its labels are read. Refused and failed requests are
counted, not retried.""",
        extra="server,plot",
    )
    parser.add_argument("url", metavar="URL", help="the server: [grpc://|http://]host:port")
    add_events(parser)
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="closed loop: events in flight at all times; several values are measured in turn",
    )
    load.add_argument(
        "--rate",
        type=float,
        nargs="+",
        default=[],
        metavar="HZ",
        help="open loop: events per second, arriving at random (Poisson)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    parser.add_argument(
        "--warm-up", type=float, default=1.0, metavar="S", help="unmeasured time before each load"
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=[],
        metavar="W",
        help="relative frequency of each EVENT argument (default: equal)",
    )
    _add_checks(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number as JSON")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots")


def _add_checks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        nargs="?",
        choices=("first", "local"),
        const="first",
        help="compare every answer with the server's first one for the event, or with the pipeline in this process",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="each EVENT is a .npy file of scaled features [N, F], for the model exatrkx",
    )
    parser.add_argument(
        "--rolled-to",
        type=Path,
        metavar="BUNDLE",
        help="with --check: answers of this bundle are right, too, for a roll during the load",
    )
    add_bundle_option(parser, "with --check local: ", server="from the server")
    add_engine_option(parser, "with --check local: ", default=None)
    parser.add_argument(
        "--shared-memory",
        action="store_true",
        help="send tensors through system shared memory; needs `serve --shared-memory` on this machine",
    )
    parser.add_argument(
        "--processes", type=int, default=0, help="sending processes (0: one per core)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds per event"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the events' order and arrivals"
    )
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help="address of the server's metrics, for the time of a monolith's stages "
        "(default: port 8002 of a server on port 8000 or 8001)",
    )


def run(options: argparse.Namespace) -> None:
    """Load the server, print and write the reports."""
    from trackserve.client.statistics import usual_metrics
    from trackserve.load.report import measure, table

    if options.check != "local":
        refuse(options, ("engine",), "--check local")
    if options.check is None:
        refuse(options, ("rolled_to",), "--check")
    check_place(options.json)
    events = _events(options)
    metrics_url = options.metrics or usual_metrics(options.url)
    reports = [
        measure(options.url, events, load, metrics_url=metrics_url, progress=True)
        for load in _loads(options)
    ]
    print(table(reports))
    if options.json is not None:
        with written(options.json) as file:
            file.write(json.dumps([report.to_json() for report in reports], indent=1) + "\n")
    if options.plots is not None:
        from trackserve.load.plots import write_plots

        for path in write_plots(reports, options.plots):
            print(path)


def _loads(options: argparse.Namespace) -> list[Load]:
    from trackserve.load.load import Load

    kinds = [{"rate": r} for r in options.rate] or [{"concurrency": n} for n in options.concurrency]
    return [
        Load(
            **kind,
            seconds=options.seconds,
            warm_up=options.warm_up,
            timeout=options.timeout,
            shared_memory=options.shared_memory,
            processes=options.processes,
            seed=options.seed,
        )
        for kind in kinds
    ]


def _events(options: argparse.Namespace) -> Events:
    """Return the events as the server takes them, with the expected labels if these are checked."""
    from trackserve.client import Client
    from trackserve.finding import local_finder
    from trackserve.load.load import first_answers, mix

    with Client(options.url, timeout=options.timeout, bundle=_asked_bundle(options)) as client:
        columns = client.description.columns
        kinds = [
            (str(path), _read_features(path) if options.features else _read_hits(path, columns))
            for path in options.events
        ]
        events = mix(client, kinds, options.weights, features=options.features)
        if options.check == "first":
            events = first_answers(client, events)

    def found_here(bundle: Path | None) -> list[Int64]:
        finder = local_finder(bundle, engine=options.engine or "auto")
        find: Any = finder.find_tracks_from_features if options.features else finder.find_tracks
        given = [each for _, events_of_kind in kinds for each in events_of_kind]
        bar = tqdm(given, desc="expected labels", unit="event", disable=None)
        return [find(each).labels for each in bar]

    if options.check == "local":
        events = events.expecting(found_here(options.bundle))
    if options.rolled_to is not None:
        events = events.expecting(events.expected or [], found_here(options.rolled_to))
    return events


def _asked_bundle(options: argparse.Namespace) -> str | None:
    """Return the name of the server's bundle: with --check local that of the one read here."""
    if options.bundle is None or options.check != "local":
        return served_bundle(options)
    from trackserve.bundle import read_bundle

    return read_bundle(options.bundle).name


def _read_hits(path: Path, columns: Sequence[str]) -> list[Hits]:
    return [source.read_columns(columns, truth=False).hits for source in find_sources([path])]


def _read_features(path: Path) -> list[NDArray[Any]]:
    """Return the one event of a file of features."""
    import numpy as np

    try:
        return [np.load(path, allow_pickle=False)]
    except (OSError, ValueError, EOFError) as error:
        message = f"{path} is not a .npy file of features [N, F]: {error}"
        raise InputError(message) from None
