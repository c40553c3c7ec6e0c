"""Options that several commands share, and finding their events."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from trackserve.bundle import Bundle
    from trackserve.data import EventSource

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults after options that have one, and keeps the layout of examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == []
        stated = "(default" in (action.help or "")
        return action.help if nothing or stated else super()._get_help_string(action)


def new_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    *,
    extra: str = "engines",
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command that ``run`` carries out, with the packages of ``extra``."""
    parser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=Formatter
    )
    parser.set_defaults(run=run, extra=extra)
    return parser


def add_events(parser: argparse.ArgumentParser) -> None:
    """Add the events that a command reads."""
    parser.add_argument(
        "events",
        type=Path,
        nargs="+",
        metavar="EVENT",
        help="a folder or .zip of events (TrackML or ACTS tables as .csv, .csv.gz or .parquet), or a file of one event",
    )


def add_bundle_option(
    parser: argparse.ArgumentParser, prefix: str = "", *, server: str = ""
) -> None:
    """Add the choice of a bundle; ``server`` says when it is one of a server's."""
    of_server = f"; {server}: the name of one of its bundles (default: its first)"
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help=f"{prefix}a bundle's folder, or the name of one that ships (default: trackml)"
        + (of_server if server else ""),
    )


def add_bundles_option(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the bundles that a server has."""
    parser.add_argument(
        "--bundle",
        action="append",
        metavar="[NAME=]BUNDLE",
        help="a bundle's folder, or the name of one that ships, and what to call it; repeated, the server has "
        "several, and clients that name none get the first (default: trackml)",
    )


def served_bundle(options: argparse.Namespace) -> str | None:
    """Return the name of the server's bundle that was chosen, None for its first one.

    Raises :class:`InputError` for a folder.
    """
    bundle = options.bundle
    if bundle is not None and (len(bundle.parts) > 1 or bundle.is_dir()):
        message = (
            f"--bundle {bundle} is a folder, which needs the pipeline in process (`find --local`, or no --server); "
            "a server's bundles go by their names"
        )
        raise InputError(message)
    return None if bundle is None else str(bundle)


def chosen_bundles(options: argparse.Namespace) -> tuple[Bundle, list[Bundle]]:
    """Return the first bundle and the others."""
    from trackserve.bundle import read_bundle
    from trackserve.bundle.named import named_bundle

    first, *others = [named_bundle(text) for text in options.bundle or ()] or [read_bundle()]
    return first, others


def describe_bundles(bundles: Iterable[Bundle]) -> str:
    """Return the bundles in words: name and digest."""
    return ", ".join(f"{bundle.name} ({bundle.digest()})" for bundle in bundles)


def add_engine_option(
    parser: argparse._ActionsContainer, prefix: str = "", default: str | None = "auto"
) -> None:
    """Add the choice of an engine."""
    from trackserve.engines.registry import names

    parser.add_argument(
        "--engine",
        choices=("auto", *names()),
        default=default,
        help=f"{prefix}engine; auto is the fastest on this machine (`trackserve info` lists them)",
    )


def add_folder_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the folder of a fleet."""
    parser.add_argument(
        "--folder", type=Path, default=Path("fleet"), metavar="DIR", help=f"folder {text}"
    )


def add_register_option(parser: argparse.ArgumentParser) -> None:
    """Add the folder in which a server or front leaves its address."""
    parser.add_argument(
        "--register",
        type=Path,
        metavar="DIR",
        help="folder for a file with this address while requests are taken, for `front --servers DIR`",
    )


def refuse(options: argparse.Namespace, names: Sequence[str], place: str) -> None:
    """Raise if any of these options is given: they need ``place``, which is not."""
    for name in names:
        if getattr(options, name) is not None:
            message = f"--{name.replace('_', '-')} needs {place}"
            raise InputError(message)


def find_sources(paths: Sequence[Path]) -> list[EventSource]:
    """Return the events at these paths, not yet read."""
    from trackserve.data import find_events

    return [source for path in paths for source in find_events(path)]


def progress(sources: Sequence[EventSource], name: str) -> Generator[EventSource, None, None]:
    """Yield the events, with a progress bar on a terminal unless there is only one."""
    yield from tqdm(sources, desc=name, unit="event", disable=len(sources) < 2 or None)
