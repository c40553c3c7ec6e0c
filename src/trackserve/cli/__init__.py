"""The command line: parse, call one library function, print.

Exit status: 0 done, 1 the server was at fault, 2 the input was, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import gzip
import json
import os
import sys
import warnings
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from tqdm import tqdm

from trackserve import __version__
from trackserve.errors import InputError, MissingDependencyError, ServerError, TrackserveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trackserve.data import EventSource
    from trackserve.event import Hits, Tracks
    from trackserve.serving.settings import Settings

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

FIRST_TRIES = 5
"""Of a server that may not be there at all: nobody waits a minute to hear that."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults after options that have one, and examples as they were written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == []
        told = "(default" in (action.help or "")
        return action.help if nothing or told else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    warnings.formatwarning = _one_sentence
    try:
        with _needs_extra(options.extra):
            options.run(options)
        sys.stdout.flush()
    except TrackserveError as error:
        print(f"trackserve {options.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ServerError) else 2
    except KeyboardInterrupt as stop:
        from trackserve.serving.process import Terminated

        return 0 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"trackserve {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _one_sentence(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning without the line of code that gave it."""
    del category, filename, lineno, line
    return f"trackserve: {message}\n"


@contextlib.contextmanager
def _needs_extra(extra: str) -> Iterator[None]:
    """Tell which part of trackserve to install where a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = (
            f"{error.name} is not installed; this command needs: pip install 'trackserve[{extra}]'"
        )
        raise MissingDependencyError(message) from error


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command: also what the reference in the docs is made from."""
    parser = argparse.ArgumentParser(
        prog="trackserve",
        description="Send hits, get tracks: machine-learning track finding behind a Triton server.",
        formatter_class=_Formatter,
        epilog="""examples:
  trackserve serve                                  serve the shipped bundle on port 8001 (gRPC)
  trackserve find examples/events/pu20 -o tracks.csv
  trackserve evaluate examples/events/pu200         judge the shipped bundle, stage by stage
  trackserve simulate --pileup 20 --events 10 --seed 1 -o events
  trackserve train events -o my-bundle""",
    )
    parser.add_argument("--version", action="version", version=f"trackserve {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_serve,
        _add_fleet,
        _add_roll,
        _add_status,
        _add_repository,
        _add_find,
        _add_evaluate,
        _add_bench,
        _add_tune,
        _add_simulate,
        _add_train,
        _add_calibrate,
        _add_bundle,
        _add_info,
    ):
        add(commands)
    return parser


def _command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    *,
    extra: str = "server",
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=_Formatter
    )
    parser.set_defaults(run=run, extra=extra)
    return parser


# ---- serve, fleet, status, repository


def _add_serve(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "serve",
        _serve,
        "Serve a bundle with tritonserver until Ctrl-C or SIGTERM.",
        epilog="The server listens on this machine alone unless --address says otherwise.",
    )
    _add_bundle_option(parser)
    _add_settings(parser)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    for protocol, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{protocol}-port", type=int, default=port, help="port; 0 picks a free one"
        )
    parser.add_argument("--log", type=Path, help="file for the server's log")


def _serve(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.serving.process import interrupted_by_sigterm
    from trackserve.serving.server import serve

    bundle = read_bundle(options.bundle)
    settings = _settings(options)
    with (
        interrupted_by_sigterm(),
        serve(
            bundle,
            settings,
            address=options.address,
            http_port=options.http_port,
            grpc_port=options.grpc_port,
            metrics_port=options.metrics_port,
            log=options.log,
        ) as server,
    ):
        print(f"serving bundle {bundle.name} ({bundle.digest()}) as {settings.shape}")
        print(f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}")
        print(f"  metrics  {server.metrics_url}\nready; stop with Ctrl-C", flush=True)
        server.wait()


def _add_fleet(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "fleet",
        _fleet,
        "Serve a bundle with several tritonservers behind one Envoy until Ctrl-C or SIGTERM.",
        extra="server,fleet",
        epilog="Clients of gRPC and HTTP reach the fleet at one port; a server that fails is left out.",
    )
    parser.add_argument("--servers", type=int, default=2, metavar="N", help="tritonservers")
    _add_bundle_option(parser)
    _add_settings(parser)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 picks a free one")
    _add_folder_option(parser, "for Envoy's configuration and all logs")


def _fleet(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.serving.fleet import Fleet
    from trackserve.serving.process import interrupted_by_sigterm

    bundle = read_bundle(options.bundle)
    settings = _settings(options)
    with (
        interrupted_by_sigterm(),
        Fleet(
            bundle,
            settings,
            servers=options.servers,
            folder=options.folder,
            address=options.address,
            port=options.port,
        ) as fleet,
    ):
        print(f"serving bundle {bundle.name} ({bundle.digest()}) as {settings.shape}")
        print(f"  gRPC     grpc://{fleet.address}\n  HTTP     http://{fleet.address}")
        print(f"  servers  {options.servers}, logs in {fleet.folder}")
        print("ready; stop with Ctrl-C", flush=True)
        fleet.wait()


def _add_roll(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "roll",
        _roll,
        "Replace the servers of a running fleet, one after the other, by ones with another bundle.",
        epilog="No client sees an error. If the new bundle can't be served, the old servers go on.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the new bundle's folder")
    _add_folder_option(parser, "of the fleet")


def _roll(options: argparse.Namespace) -> None:
    from trackserve.serving.fleet.control import roll

    print(roll(options.folder, options.bundle))


def _add_folder_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("fleet"), metavar="DIR", help=f"folder {text}"
    )


def _add_status(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "status",
        _status,
        "Tell what a server runs, how busy it is, what it refused and where the time goes.",
        epilog="It watches the server for two seconds. Of a fleet it tells each server.",
    )
    parser.add_argument("url", metavar="URL", help="the server: [grpc://|http://]host:port")
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help="of the server's metrics, which refusals and a monolith's stages are read from "
        "(default: port 8002 of a server on port 8000 or 8001)",
    )


def _status(options: argparse.Namespace) -> None:
    from trackserve.client.status import describe

    print(describe(options.url, options.metrics))


def _add_repository(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "repository",
        _repository,
        "Write the Triton model repository of a bundle, to be served elsewhere.",
        epilog="In NVIDIA's container: tritonserver --model-repository=DIR (see docs/deploying.md).",
    )
    _add_bundle_option(parser)
    _add_settings(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="new folder"
    )


def _repository(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.serving.repository import write_repository

    print(write_repository(read_bundle(options.bundle), options.output, _settings(options)))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is served")
    group.add_argument(
        "--settings",
        action=_SettingsFile,
        type=Path,
        metavar="FILE",
        help="settings as `tune` writes them, in place of the defaults; options after it override it",
    )
    group.add_argument(
        "--shape",
        choices=("monolith", "ensemble"),
        default="monolith",
        help="the whole pipeline in one model, or each stage a model of its own",
    )
    _add_engine_option(group, "of a monolith; an ensemble has the reference: ")
    group.add_argument(
        "--precision",
        choices=("bundle", "float32", "bfloat16"),
        default="bundle",
        help="what the native engine computes networks in",
    )
    group.add_argument(
        "--networks",
        choices=("python", "onnxruntime"),
        default="python",
        help="backend of an ensemble's networks; onnxruntime needs NVIDIA's container",
    )
    for name, text in (
        ("instances", "events that a monolith works on at a time, processes of a stage"),
        ("threads", "processor threads of each instance of a monolith, of each process of a stage"),
    ):
        group.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="[MODEL=]N",
            help=f"{text}; without a model, of every model (default: 1; may be repeated)",
        )
    group.add_argument("--max-hits", type=int, default=500_000, help="most hits of one event")
    group.add_argument("--max-queue", type=int, default=64, help="most requests that wait")
    group.add_argument(
        "--queue-timeout", type=float, default=60.0, metavar="S", help="longest wait, seconds"
    )
    group.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="of a monolith: most waiting events of few hits that go to an instance together",
    )
    group.add_argument(
        "--log-requests",
        choices=("none", "failures", "all"),
        default="failures",
        help="which requests get a line of JSON in the server's log",
    )
    group.add_argument(
        "--shared-memory",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let clients on this machine, all trusted, send tensors through system shared memory",
    )


class _SettingsFile(argparse.Action):
    """Takes each setting from a file, as if it stood on the command line in the file's place."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from trackserve.serving.settings_file import read_settings

        del option_string
        assert isinstance(values, Path)
        try:
            settings = vars(read_settings(values))
        except (InputError, OSError) as error:
            parser.error(str(error))
        for name in ("instances", "threads"):
            settings = settings | {name: [f"{m}={n}" for m, n in settings[name].items()]}
        vars(namespace).update(settings, settings=values)


def _settings(options: argparse.Namespace) -> Settings:
    from trackserve.engines.registry import fastest
    from trackserve.serving.settings import Settings

    models = Settings(shape=options.shape).models
    auto = "reference" if options.shape == "ensemble" else fastest()
    return Settings(
        shape=options.shape,
        engine=auto if options.engine == "auto" else options.engine,
        precision=options.precision,
        networks=options.networks,
        instances=_numbers("--instances", options.instances, models),
        threads=_numbers("--threads", options.threads, models),
        max_hits=options.max_hits,
        max_queue=options.max_queue,
        queue_timeout=options.queue_timeout,
        batch=options.batch,
        log_requests=options.log_requests,
        shared_memory=options.shared_memory,
    )


def _numbers(option: str, given: Sequence[str], models: Sequence[str]) -> dict[str, int]:
    """Return the number for each model from values such as ``2`` and ``gnn=2``, the last one wins."""
    numbers: dict[str, int] = {}
    for text in given:
        model, _, number = text.rpartition("=")
        if not number.isdecimal():
            message = f"{option} {text}: expected a whole number, or MODEL=NUMBER"
            raise InputError(message)
        numbers |= dict.fromkeys([model] if model else models, int(number))
    return numbers


# ---- find, evaluate


def _add_find(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "find",
        _find,
        "Find the tracks of events and write event_id,hit_id,track_id (TrackML's submission).",
        epilog="""examples:
  trackserve find events/ --server localhost:8001 --concurrency 8 -o tracks.csv
  trackserve find event000000020-hits.csv.gz --local | head""",
    )
    _add_events(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--server", default="localhost:8001", metavar="URL", help="[grpc://|http://]host:port"
    )
    place.add_argument("--local", action="store_true", help="in this process, without a server")
    _add_bundle_option(parser, "with --local: ")
    _add_engine_option(parser, "with --local: ", default=None)
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="events under way at a time, from a server over gRPC (default: 1); "
        "two for each of the server's instances keep it busy",
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds an event")
    parser.add_argument("-o", "--output", type=Path, help="CSV file (default: standard output)")


def _find(options: argparse.Namespace) -> None:
    if not options.local:
        _refuse(options, ("bundle", "engine"), "--local; a server has its own")
    else:
        _refuse(options, ("concurrency",), "--server")
    _check_place(options.output)
    sources = _sources(options.events, distinct=True)
    server = None if options.local else options.server
    with (
        _finder(server, options.timeout, options.bundle, options.engine) as (find, columns),
        _written(options.output) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["event_id", "hit_id", "track_id"])

        def write(source: EventSource, hits: Hits, tracks: Tracks) -> None:
            events = np.full(len(hits), source.event_id)
            writer.writerows(np.stack([events, hits.hit_id, tracks.labels], axis=1).tolist())

        def read() -> Iterator[tuple[EventSource, Hits]]:
            for source in tqdm(sources, desc="find", unit="event", disable=len(sources) < 2):
                yield source, source.read_columns(columns, truth=False).hits

        if options.concurrency is not None:
            asyncio.run(_find_at_once(options, read(), write))
            return
        for source, hits in read():
            write(source, hits, find(hits))


async def _find_at_once(
    options: argparse.Namespace,
    events: Iterator[tuple[EventSource, Hits]],
    write: Callable[[EventSource, Hits, Tracks], None],
) -> None:
    """Find the tracks of several events at a time and write them in the order of the events."""
    from trackserve.client import AsyncClient

    asked: deque[tuple[EventSource, Hits]] = deque()

    def sent() -> Iterator[Hits]:
        for event in events:
            asked.append(event)
            yield event[1]

    async with AsyncClient(
        options.server, timeout=options.timeout, concurrency=options.concurrency
    ) as client:
        async for answer in client.find_all(sent()):
            write(*asked.popleft(), answer.tracks)


def _refuse(options: argparse.Namespace, names: Sequence[str], place: str) -> None:
    """Raise if any of the options is given, for it goes with something that isn't."""
    for name in names:
        if getattr(options, name) is not None:
            message = f"--{name} goes with {place}"
            raise InputError(message)


def _check_place(path: Path | None) -> None:
    """Raise before the work unless its result can be written there."""
    if path is not None and path.is_dir():
        message = f"{path} is a folder; name a file"
        raise InputError(message)
    if path is not None and not path.parent.is_dir():
        message = f"there is no folder {path.parent} for {path.name}"
        raise InputError(message)


@contextlib.contextmanager
def _written(path: Path | None) -> Iterator[TextIO]:
    """Give a text file that takes its place when it is whole, gzipped if so named; else the output."""
    if path is None:
        yield sys.stdout
        return
    beside = path.with_name(f".{path.name}.partial")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(beside, "wt", encoding="utf-8", newline="") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _add_evaluate(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "Judge tracks on events with truth: in process stage by stage, from a server, or from a file.",
    )
    _add_events(parser)
    _add_bundle_option(parser)
    _add_engine_option(parser, "in process: ", default=None)
    parser.add_argument("--server", metavar="URL", help="tracks from this server")
    parser.add_argument(
        "--tracks",
        type=Path,
        metavar="CSV",
        help="tracks from this file of `find` (event_id,hit_id,track_id; negative: none)",
    )
    parser.add_argument("--threads", type=int, help="in process: processor threads (default: 1)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds an event")
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="find tracks among the hits of the pixel detector alone (volumes 7, 8, 9)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number, bins too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the usual plots")


def _evaluate(options: argparse.Namespace) -> None:
    from trackserve.evaluate.report import evaluate, pixels_of, with_stages

    given = [o for o in ("bundle", "server", "tracks") if getattr(options, o) is not None]
    if len(given) > 1:
        message = f"--{given[0]} and --{given[1]} exclude each other; tracks come from one place"
        raise InputError(message)
    if options.server is not None or options.tracks is not None:
        _refuse(
            options, ("engine", "threads"), "the pipeline in process, not with --server or --tracks"
        )
    if options.pixels and options.tracks is not None:
        message = "--pixels chooses the hits to find tracks in; the tracks of --tracks are found"
        raise InputError(message)
    _check_place(options.json)
    sources = _sources(options.events, distinct=options.tracks is not None)
    bar = tqdm(sources, desc="evaluate", unit="event", disable=len(sources) < 2)
    if options.tracks is not None:
        from trackserve.evaluate.submission import evaluate_tracks, read_tracks

        tracks = read_tracks(options.tracks)
        result, absent = evaluate_tracks((source.read() for source in bar), tracks)
        if absent:
            print(f"{options.tracks} lacks {absent:,} hits: they are on no track", file=sys.stderr)
    elif options.server is not None:
        with _finder(options.server, options.timeout) as (find, columns):
            events = (source.read_columns(columns) for source in bar)
            result = evaluate(map(pixels_of, events) if options.pixels else events, find)
    else:
        from trackserve.bundle import read_bundle
        from trackserve.engines.registry import open_pipeline

        bundle = read_bundle(options.bundle)
        engine, threads = options.engine or "auto", options.threads or 1
        pipeline = open_pipeline(bundle, engine=engine, threads=threads)
        columns = pipeline.bundle.features.wire_columns
        events = (source.read_columns(columns) for source in bar)
        result = evaluate(
            map(pixels_of, events) if options.pixels else events, with_stages(pipeline)
        )
    print(result.table())
    if options.json is not None:
        with _written(options.json) as file:
            file.write(json.dumps(result.to_json(), indent=1) + "\n")
    if options.plots is not None:
        from trackserve.evaluate.plots import write_plots

        for path in write_plots(result, options.plots):
            print(path)


@contextlib.contextmanager
def _finder(
    server: str | None, timeout: float, bundle: Path | None = None, engine: str | None = None
) -> Iterator[tuple[Callable[[Hits], Tracks], Sequence[str]]]:
    """Give what finds tracks, a server's client or the pipeline here, and the columns it needs."""
    if server is not None:
        from trackserve.client import Client

        with Client(server, timeout=timeout, tries=FIRST_TRIES) as client:
            columns = client.description.columns
        with Client(server, timeout=timeout) as client:
            yield client.find_tracks, columns
    else:
        from trackserve.bundle import read_bundle
        from trackserve.engines.registry import open_pipeline

        found = read_bundle(bundle)
        pipeline = open_pipeline(
            found, engine=engine or "auto", threads=len(os.sched_getaffinity(0))
        )
        yield pipeline.find_tracks, found.features.wire_columns


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "events",
        type=Path,
        nargs="+",
        metavar="EVENT",
        help="a folder or .zip of events (TrackML or ACTS tables as .csv, .csv.gz or .parquet), or a file of one event",
    )


def _sources(paths: Sequence[Path], *, distinct: bool) -> list[EventSource]:
    """Find the events; where a file of tracks tells them by their numbers, these must differ."""
    from trackserve.data import find_events

    sources = [source for path in paths for source in find_events(path)]
    seen: dict[int, EventSource] = {}
    for source in sources:
        other = seen.setdefault(source.event_id, source)
        if distinct and other is not source:
            message = (
                f"{other} and {source} have one number; a file of tracks can't tell them apart"
            )
            raise InputError(message)
    return sources


# ---- bench


def _add_bench(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "bench",
        _bench,
        "Load a server and tell its throughput, its latency and where the time went.",
        epilog="""examples:
  trackserve bench localhost:8001 events/ --concurrency 1 2 4 8 --plots plots/
  trackserve bench http://localhost:8000 events/ --rate 20 --seconds 60 --check
  trackserve bench localhost:8001 small/ large/ --weights 9 1 --shared-memory

Latency counts from the moment at which an event was to be sent until its labels are read. Requests that
are refused or fail are counted, not sent again.""",
        extra="server,plot",
    )
    parser.add_argument("url", metavar="URL", help="the server: [grpc://|http://]host:port")
    _add_events(parser)
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="closed loop: so many events under way all the time; one load after the other",
    )
    load.add_argument(
        "--rate",
        type=float,
        nargs="+",
        default=[],
        metavar="HZ",
        help="open loop: events arrive at random (Poisson), so many a second",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    parser.add_argument(
        "--warm-up", type=float, default=1.0, metavar="S", help="before, unmeasured"
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=[],
        metavar="W",
        help="how often events of each EVENT argument come (default: as often as the others')",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        choices=("first", "local"),
        const="first",
        help="compare every answer with the server's first one for the event, or with the one in this process",
    )
    _add_bundle_option(parser, "with --check local: ")
    _add_engine_option(parser, "with --check local: ", default=None)
    parser.add_argument(
        "--shared-memory",
        action="store_true",
        help="through system shared memory; needs `serve --shared-memory` on this machine",
    )
    parser.add_argument("--processes", type=int, default=0, help="that send (0: one a core)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds an event")
    parser.add_argument("--seed", type=int, default=0, help="of the events' order and arrivals")
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help="of the server's metrics, which tell a monolith's stages "
        "(default: port 8002 of a server on port 8000 or 8001)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots")


def _bench(options: argparse.Namespace) -> None:
    from trackserve.client import Client
    from trackserve.client.statistics import usual_metrics
    from trackserve.load.load import Load, first_answers, mix
    from trackserve.load.report import measure, table

    if options.check != "local":
        _refuse(options, ("bundle", "engine"), "--check local")
    _check_place(options.json)
    loads = [
        Load(
            **given,
            seconds=options.seconds,
            warm_up=options.warm_up,
            timeout=options.timeout,
            shared_memory=options.shared_memory,
            processes=options.processes,
            seed=options.seed,
        )
        for given in (
            [{"rate": r} for r in options.rate] or [{"concurrency": n} for n in options.concurrency]
        )
    ]
    with Client(options.url, timeout=options.timeout) as client:
        columns = client.description.columns
        kinds = [
            (
                str(path),
                [
                    s.read_columns(columns, truth=False).hits
                    for s in _sources([path], distinct=False)
                ],
            )
            for path in options.events
        ]
        events = mix(client, kinds, options.weights)
        if options.check == "first":
            events = first_answers(client, events)
    if options.check == "local":
        with _finder(None, options.timeout, options.bundle, options.engine) as (find, _):
            hits = [each for _, found in kinds for each in found]
            events = events.expecting([find(h).labels for h in tqdm(hits, desc="expect")])
    metrics_url = options.metrics or usual_metrics(options.url)
    reports = [
        measure(options.url, events, load, metrics_url=metrics_url, progress=True) for load in loads
    ]
    print(table(reports))
    if options.json is not None:
        with _written(options.json) as file:
            file.write(json.dumps([report.to_json() for report in reports], indent=1) + "\n")
    if options.plots is not None:
        from trackserve.load.plots import write_plots

        for path in write_plots(reports, options.plots):
            print(path)


def _add_tune(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "tune",
        _tune,
        "Search the settings that serve best on this machine, and write them and a report.",
        epilog="""examples:
  trackserve tune events/ --p99 100 -o tuning      most events a second with p99 below 100 ms
  trackserve tune events/ --rate 20 -o tuning      lowest p99 at 20 events a second
  trackserve serve --settings tuning/settings.toml

Trials that are in the folder are kept: run it again to go on after a stop.""",
        extra="server,plot",
    )
    _add_events(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--p99", type=float, default=0.0, metavar="MS", help="the longest p99, ms")
    goal.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="events a second")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the search"
    )
    _add_bundle_option(parser)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="at most so many")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=("native", "reference"),
        default=("native", "reference"),
        help="that may be chosen, beginning with the first",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("bundle", "float32", "bfloat16"),
        default=("bundle",),
        help="that may be chosen; another than the bundle's finds slightly other tracks",
    )


def _tune(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.load.tune import Goal, Tuning
    from trackserve.load.tune_report import write_report

    bundle = read_bundle(options.bundle)
    sources = _sources(options.events, distinct=False)
    columns = bundle.features.wire_columns
    tuning = Tuning(
        bundle,
        [source.read_columns(columns, truth=False).hits for source in sources],
        Goal(p99=options.p99 / 1000, rate=options.rate),
        options.output,
        seconds=options.seconds,
        trials=options.trials,
        engines=tuple(options.engines),
        precisions=tuple(options.precisions),
    )
    trials = tuning.search()
    for path in write_report(tuning, trials):
        print(path)
    if tuning.best(trials) is None:
        message = f"no settings reach {tuning.goal}; the report tells what was tried"
        raise InputError(message)


# ---- simulate, train, bundle, info


def _add_simulate(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "simulate",
        _simulate,
        "Simulate ttbar events with pileup (Pythia 8, ACTS) in the TrackML detector.",
        extra="sim",
        epilog="Events that are there already are kept: run it again to go on after a stop.",
    )
    parser.add_argument(
        "--pileup", type=float, required=True, metavar="MU", help="mean further collisions"
    )
    parser.add_argument("--events", type=int, required=True, metavar="N", help="number of events")
    parser.add_argument(
        "--seed", type=int, required=True, help="the same seed gives the same bytes"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the events"
    )
    parser.add_argument(
        "--first-event", type=int, default=0, metavar="N", help="first event number"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--form",
        choices=("csv", "csv.gz", "parquet"),
        default="csv.gz",
        help="how tables are written; parquet is smallest, and read fastest",
    )
    parser.add_argument("--noise", type=float, default=0.15, help="share of noise among all hits")
    parser.add_argument(
        "--field",
        choices=("solenoid", "constant"),
        default="solenoid",
        help="a coil's field, which falls off at its ends, or the same everywhere",
    )
    parser.add_argument("--field-scale", type=float, default=1.0, help="factor on the 2 T field")
    parser.add_argument(
        "--digitisation",
        choices=("geometric", "smeared"),
        default="geometric",
        help="positions from cells, or the true ones blurred by pitch / sqrt(12)",
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
        help="where collisions happen on average, mm",
    )


def _simulate(options: argparse.Namespace) -> None:
    from trackserve.data.simulate import simulate

    simulate(
        options.output,
        pileup=options.pileup,
        events=options.events,
        seed=options.seed,
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


def _add_train(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "Train embedding, filter and GNN on events with truth and write a bundle.",
        extra="train,server",
        epilog="Everything is kept in BUNDLE.training: run it again to go on after a kill.",
    )
    parser.add_argument(
        "data", type=Path, nargs="+", metavar="DATA", help="folders or .zip of events"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="folder")
    parser.add_argument("--recipe", default="trackml", help="a name that ships, or a TOML file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--validation",
        type=Path,
        metavar="DIR",
        help="events to choose radius and cuts on (default: a share of DATA)",
    )
    parser.add_argument(
        "--test",
        type=Path,
        metavar="DIR",
        help="events to measure the bundle on, given with --validation",
    )


def _train(options: argparse.Namespace) -> None:
    from trackserve.training.recipe import read_recipe
    from trackserve.training.train import train

    if (options.validation is None) != (options.test is None):
        message = "--validation and --test are given together, or neither"
        raise InputError(message)
    recipe = read_recipe(options.recipe)
    apart = None if options.test is None else (options.validation, options.test)
    train(options.data, options.output, recipe, device=options.device, apart=apart)
    print(options.output)


def _add_calibrate(commands: Subparsers) -> None:
    parser = _command(
        commands,
        "calibrate",
        _calibrate,
        "Write a copy of a bundle that can be computed in 8 bits, which training does by itself.",
        epilog="Its filter and its network on triplets get the ranges of their activations.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder")
    _add_events(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NEW", help="folder")


def _calibrate(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.training.calibrate import calibrate

    sources = _sources(options.events, distinct=False)
    calibrate(read_bundle(options.bundle), sources, options.output)
    print(options.output)


def _add_bundle(commands: Subparsers) -> None:
    parser = _command(commands, "bundle", _show, "Show or check a bundle.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (
        ("show", _show, "Print what a bundle says about itself."),
        (
            "check",
            _check,
            "Read a bundle, run it on no hits and a few, and say whether it is sound.",
        ),
    ):
        action = actions.add_parser(name, help=text, description=text, formatter_class=_Formatter)
        action.set_defaults(run=run)
        action.add_argument(
            "bundle", type=Path, nargs="?", help="folder (default: the shipped bundle)"
        )


def _show(options: argparse.Namespace) -> None:
    from trackserve.bundle import DESCRIPTION, read_bundle

    bundle = read_bundle(options.bundle)
    print(f"# {bundle.path}  digest {bundle.digest()}")
    print((bundle.path / DESCRIPTION).read_text(encoding="utf-8"), end="")


def _check(options: argparse.Namespace) -> None:
    from trackserve.bundle import read_bundle
    from trackserve.pipeline.check import check_answers

    bundle = read_bundle(options.bundle)
    check_answers(bundle)
    print(f"{bundle.path}: sound, digest {bundle.digest()}")


def _add_info(commands: Subparsers) -> None:
    _command(
        commands,
        "info",
        _info,
        "Tell what this installation is and has: engines, processor, bundles, optional parts.",
    )


def _info(options: argparse.Namespace) -> None:
    del options
    from trackserve.installation import describe

    print(describe())


def _add_engine_option(
    parser: argparse._ActionsContainer, prefix: str = "", default: str | None = "auto"
) -> None:
    parser.add_argument(
        "--engine",
        choices=("auto", "native", "reference"),
        default=default,
        help=f"{prefix}what runs the bundle: compiled kernels (native), or onnxruntime and numpy (reference), "
        "many times slower; auto is the fastest that is installed",
    )


def _add_bundle_option(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help=f"{prefix}the bundle's folder (default: the shipped TrackML bundle)",
    )
