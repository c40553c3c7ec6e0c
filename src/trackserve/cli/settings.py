"""The options for how a bundle is served: those of `serve`, `fleet` and `repository`."""

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
    add_engine_option(group, "of a monolith; an ensemble has the reference: ")
    group.add_argument(
        "--device",
        default="auto",
        help="where the engine runs, such as cpu; auto is the first that it has on this machine",
    )
    group.add_argument(
        "--precision",
        choices=("bundle", *PRECISIONS),
        default="bundle",
        help="what the engine computes networks in, of those that it has",
    )
    group.add_argument(
        "--networks",
        choices=("python", "onnxruntime"),
        default="python",
        help="backend of an ensemble's networks; onnxruntime needs NVIDIA's container",
    )
    _add_numbers(group)
    _add_limits(group)


def _add_numbers(group: argparse._ArgumentGroup) -> None:
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


def _add_limits(group: argparse._ArgumentGroup) -> None:
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
