"""``trackserve evaluate``: tracks judged on events with truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import (
    add_bundle_option,
    add_engine_option,
    add_events,
    find_sources,
    new_command,
    progress,
    refuse,
    served_bundle,
)
from trackserve.cli.output import check_place, written
from trackserve.errors import InputError
from trackserve.evaluate.metrics import UNITS
from trackserve.evaluate.targets import COLUMNS, OwnTargets

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from trackserve.cli.options import Subparsers
    from trackserve.data import EventSource
    from trackserve.evaluate.report import Evaluation
    from trackserve.event import Event


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "evaluate",
        run,
        "Evaluate tracks on events with truth: in process stage by stage, from a server, or from a file.",
    )
    add_events(parser)
    add_bundle_option(parser, server="with --server")
    add_engine_option(parser, "in process: ", default=None)
    parser.add_argument("--server", metavar="URL", help="take the tracks from this server")
    parser.add_argument(
        "--tracks",
        type=Path,
        metavar="CSV",
        help="take the tracks from a file of `find` (event_id,hit_id,track_id; negative: no track)",
    )
    parser.add_argument("--threads", type=int, help="in process: processor threads (default: 1)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds per event"
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="use only the hits of the pixel detector (volumes 7, 8, 9)",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="CONDITION",
        help="targets of your own, repeatable, such as "
        '"pt > 0.5 and 2 < production_radius < 30 and hits >= 6"; '
        f"particles have {', '.join(COLUMNS)}",
    )
    parser.add_argument(
        "--bins",
        action="append",
        default=[],
        choices=tuple(UNITS),
        metavar="VARIABLE",
        help=f"print efficiencies in bins of {', '.join(UNITS)}; for pt, eta and hits the rates of fakes "
        "and duplicates, too",
    )
    parser.add_argument("--explain", action="store_true", help="print what every number means")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write every number, with bins, as JSON"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots")


def run(options: argparse.Namespace) -> None:
    """Print and write the evaluation."""
    _check(options)
    options.own = [OwnTargets(condition) for condition in dict.fromkeys(options.target)]
    sources = find_sources(options.events)
    if options.tracks is not None:
        result = _of_file(options, sources)
    elif options.server is not None:
        result = _of_server(options, sources)
    else:
        result = _in_process(options, sources)
    plots: Sequence[Path] = ()
    # Files first: the reader of a pipe (head) may end the command at the table.
    if options.json is not None:
        with written(options.json) as file:
            file.write(json.dumps(result.to_json(), indent=1) + "\n")
    if options.plots is not None:
        from trackserve.evaluate.plots import write_plots

        plots = write_plots(result, options.plots)
    print(result.table(explain=options.explain, variables=options.bins))
    if not options.explain:
        print("\n--explain prints what every name and number means")
    for path in plots:
        print(path)


def _check(options: argparse.Namespace) -> None:
    given = [o for o in ("server", "tracks") if getattr(options, o) is not None]
    if options.bundle is not None and options.tracks is not None:
        given.insert(0, "bundle")
    if len(given) > 1:
        message = f"--{given[0]} and --{given[1]} exclude each other; tracks come from one place"
        raise InputError(message)
    if options.server is not None or options.tracks is not None:
        refuse(
            options, ("engine", "threads"), "the pipeline in process, not with --server or --tracks"
        )
    if options.pixels and options.tracks is not None:
        message = "--pixels chooses the hits to find tracks in; the tracks of --tracks are found"
        raise InputError(message)
    check_place(options.json)


def _of_file(options: argparse.Namespace, sources: Sequence[EventSource]) -> Evaluation:
    from trackserve.data.submission import read_tracks
    from trackserve.evaluate.submission import evaluate_tracks
    from trackserve.finding import check_distinct

    check_distinct(sources)
    events = (source.read() for source in progress(sources, "evaluate"))
    result, absent = evaluate_tracks(events, read_tracks(options.tracks), options.own)
    if absent:
        print(f"{options.tracks} lacks {absent:,} hits: they are on no track", file=sys.stderr)
    return result


def _of_server(options: argparse.Namespace, sources: Sequence[EventSource]) -> Evaluation:
    from trackserve.evaluate.report import evaluate
    from trackserve.finding import server_finder

    with server_finder(
        options.server, timeout=options.timeout, bundle=served_bundle(options)
    ) as finder:
        return evaluate(_events(options, sources, finder.columns), finder.find_tracks, options.own)


def _in_process(options: argparse.Namespace, sources: Sequence[EventSource]) -> Evaluation:
    from trackserve.bundle import read_bundle
    from trackserve.engines.registry import open_pipeline
    from trackserve.evaluate.report import evaluate, with_stages

    bundle = read_bundle(options.bundle)
    engine, threads = options.engine or "auto", options.threads or 1
    pipeline = open_pipeline(bundle, engine=engine, threads=threads)
    events = _events(options, sources, bundle.features.wire_columns)
    return evaluate(events, with_stages(pipeline), options.own)


def _events(
    options: argparse.Namespace, sources: Sequence[EventSource], columns: Sequence[str]
) -> Iterator[Event]:
    from trackserve.evaluate.report import pixels_of

    events = (source.read_columns(columns) for source in progress(sources, "evaluate"))
    return map(pixels_of, events) if options.pixels else events
