"""The command line: parse, call one library function, print.

Exit status: 0 success, 1 server error, 2 bad input, 130 interrupted, 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from trackserve import __version__
from trackserve.cli import (
    bench,
    bundle,
    calibrate,
    compare,
    draw,
    evaluate,
    find,
    fleet,
    front,
    info,
    plan,
    repository,
    roll,
    serve,
    simulate,
    slurm,
    status,
    train,
    tune,
    view,
)
from trackserve.cli.options import Formatter
from trackserve.errors import ServerError, TrackserveError, needs_extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = (
    serve,
    fleet,
    front,
    slurm,
    roll,
    status,
    repository,
    find,
    draw,
    view,
    evaluate,
    compare,
    bench,
    tune,
    plan,
    simulate,
    train,
    calibrate,
    bundle,
    info,
)
"""One module per command, in the order of the help text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_unknown(parser, options.command, unknown))
    warnings.formatwarning = _one_sentence
    try:
        with _ended_by_signals(), needs_extra(options.extra, "this command"):
            options.run(options)
        sys.stdout.flush()
    except TrackserveError as error:
        print(f"trackserve {options.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ServerError) else 2
    except KeyboardInterrupt as stop:
        from trackserve.serving.process import Terminated

        if isinstance(stop, _Ended):
            return 128 + stop.number
        return 0 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"trackserve {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _unknown(parser: argparse.ArgumentParser, command: str, unknown: Sequence[str]) -> str:
    """Return what is said of arguments that a command doesn't have, with the nearest option."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    given = unknown[0].partition("=")[0]
    near = difflib.get_close_matches(given, commands.choices[command]._option_string_actions, n=1)
    meant = f"is it {near[0]}? " if near else ""
    return (
        f"{command} does not know: {' '.join(unknown)}; {meant}"
        f"`trackserve {command} --help` lists its options"
    )


class _Ended(KeyboardInterrupt):
    """A signal ended a command that is no service."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that half-written files are removed."""

    def end(number: int, _: object) -> None:
        raise _Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # not what nohup ignores
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_sentence(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning without the line of code that raised it."""
    del category, filename, lineno, line
    return f"trackserve: {message}\n"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the reference in the docs is generated from it."""
    parser = argparse.ArgumentParser(
        prog="trackserve",
        description="Send hits, get tracks: machine-learning track finding behind a Triton server.",
        formatter_class=Formatter,
        epilog="""examples:
  trackserve serve                                  serve the shipped bundle on port 8001 (gRPC)
  trackserve find examples/events/pu20 -o tracks.csv
  trackserve evaluate examples/events/pu200         evaluate the shipped bundle, stage by stage
  trackserve simulate --pileup 20 --events 10 --seed 1 -o events
  trackserve train events -o my-bundle""",
    )
    parser.add_argument("--version", action="version", version=f"trackserve {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
