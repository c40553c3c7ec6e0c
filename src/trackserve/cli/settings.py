"""The options of `serve`, `fleet` and `repository` for how a bundle is served."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.options import add_engine_option
from trackserve.contract.description import PRECISIONS
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.serving.settings import Settings


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`chosen_settings`."""
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--settings",
        action=_SettingsFile,
        type=Path,
        metavar="FILE",
        help="settings from `tune`, instead of the defaults; later options override it",
    )
    group.add_argument(
        "--shape",
        choices=("monolith", "ensemble"),
        default="monolith",
        help="the whole pipeline in one model, or one model per stage",
    )
    add_engine_option(group, "of a monolith (an ensemble uses the reference): ")
    group.add_argument(
        "--device",
        default="auto",
        help="where the engine runs, such as cpu or cuda:0; cuda:0,cuda:1 runs a monolith's instances "
        "on both in turn; auto is the engine's first on this machine",
    )
    group.add_argument(
        "--precision",
        choices=("bundle", *PRECISIONS),
        default="bundle",
        help="precision of the networks; bundle is the bundle's own",
    )
    group.add_argument(
        "--networks",
        choices=("python", "onnxruntime"),
        default="python",
        help="backend of an ensemble's networks; onnxruntime needs NVIDIA's container",
    )
    _add_numbers(group)
    _add_limits(group)
    _add_watching(group)


def _add_numbers(group: argparse._ArgumentGroup) -> None:
    for name, text in (
        ("instances", "events processed at a time by a monolith, or processes of a stage"),
        ("threads", "processor threads per instance, or per process of a stage"),
    ):
        group.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="[MODEL=]N",
            help=f"{text}; without MODEL, for all models (default: 1; repeatable)",
        )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-hits", type=int, default=500_000, help="maximum hits of one event")
    group.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="bound of one event, instead of the bundle's: edges, triplets or seconds (per hit), "
        "memory (MiB), dense, outside (refuse or warn), see docs/bundle.md (repeatable)",
    )
    group.add_argument("--max-queue", type=int, default=64, help="maximum waiting requests")
    group.add_argument(
        "--queue-timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="maximum wait in the queue, seconds",
    )
    group.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="monolith: maximum small waiting events processed together",
    )
    group.add_argument(
        "--shared-memory",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let clients on this machine, all trusted, use system shared memory",
    )


def _add_watching(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--log-requests",
        choices=("none", "failures", "all"),
        default="failures",
        help="requests with a JSON line in the server's log",
    )
    group.add_argument(
        "--trace",
        default="",
        metavar="URL",
        help="OpenTelemetry collector (OTLP over HTTP) for spans of requests, such as http://localhost:4318",
    )
    group.add_argument(
        "--trace-share",
        type=float,
        default=1.0,
        metavar="X",
        help="share of the requests in no trace that begin one, 0 to 1",
    )


class _SettingsFile(argparse.Action):
    """Applies each setting of a file as if it were given on the command line."""

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
        for name in ("instances", "threads", "budget"):
            settings = settings | {name: [f"{m}={n}" for m, n in settings[name].items()]}
        vars(namespace).update(settings, settings=values)


def chosen_settings(options: argparse.Namespace) -> Settings:
    """Return the settings that the options choose."""
    from trackserve.serving.settings import Settings

    models = Settings(shape=options.shape).models
    return Settings(
        shape=options.shape,
        engine=options.engine,
        device=options.device,
        precision=options.precision,
        networks=options.networks,
        instances=_numbers("--instances", options.instances, models),
        threads=_numbers("--threads", options.threads, models),
        max_hits=options.max_hits,
        max_queue=options.max_queue,
        queue_timeout=options.queue_timeout,
        batch=options.batch,
        log_requests=options.log_requests,
        trace=options.trace,
        trace_share=options.trace_share,
        shared_memory=options.shared_memory,
        budget=_bounds(options.budget),
    )


def _bounds(given: Sequence[str]) -> dict[str, float | str]:
    """Return the bounds of an event from values such as ``edges=300``, the last one of a name wins."""
    bounds: dict[str, float | str] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            bounds[name] = value if name == "outside" else float(value)
        except ValueError:
            message = f"--budget {text}: expected NAME=NUMBER, or outside=refuse or outside=warn"
            raise InputError(message) from None
    return bounds


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
