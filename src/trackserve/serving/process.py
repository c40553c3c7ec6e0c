"""Processes that serve: ports, starting, and telling when one has ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LOOPBACK = "127.0.0.1"
RESTARTS, RESTART_WINDOW = 5, 300.0
"""What has failed is restarted, at most RESTARTS times within RESTART_WINDOW seconds."""


def choose_ports(address: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the ports with each 0 replaced by a free one.

    Raises :class:`ServerError` if a port is in use or the address isn't this machine's.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name, port in wanted.items():
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
                listener.listen()
            except (OSError, OverflowError) as error:
                message = (
                    f"the {name} port {port} on {address} can't be used: "
                    f"{getattr(error, 'strerror', None) or error}; choose another one, or 0 for a free one"
                )
                raise ServerError(message) from None
            chosen[name] = listener.getsockname()[1]
    return chosen


class Terminated(KeyboardInterrupt):
    """SIGTERM: a service is stopped as services are, and nothing has failed."""


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does: with a :class:`KeyboardInterrupt`.

    A program that serves wraps its work in this, so that both ways of stopping it stop the server.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated


_START = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
os.umask(0o077)  # what it writes is for its user alone
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that starts another one in its place, to be ended when its parent ends."""


def spawn(
    command: list[str], *, environment: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process group of its own that ends when this process does; it adds to the file ``log``.

    The kernel's parent-death signal comes when the thread that started the child ends, so the child
    is started from a thread that waits for it.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def start_and_wait() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _START, *command],
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException as error:  # handed to the caller
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    threading.Thread(target=start_and_wait, name=Path(command[0]).name, daemon=True).start()
    return started.result()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that :func:`spawn` started and every process that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def children(pid: int) -> list[int]:
    """Return the process ids of a process' children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended
            found += map(int, task.read_text().split())
    return found


def living(pid: int) -> list[int]:
    """Return the process ids of a process' children that have not ended."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                found.append(child)
    return found


class Ending:
    """Waits until one of a few processes ends, or until somebody stops the waiting."""

    def __init__(self) -> None:
        self._stop = os.eventfd(0)

    def stop(self) -> None:
        """Let :meth:`wait` return, now and from now on."""
        os.eventfd_write(self._stop, 1)

    def wait(self, pids: Iterable[int]) -> int | None:
        """Return the first of the processes that has ended, None once the waiting was stopped."""
        with contextlib.ExitStack() as opened:
            watched: dict[int, int | None] = {self._stop: None}
            for pid in pids:
                try:
                    watch = os.pidfd_open(pid)
                except ProcessLookupError:
                    return pid
                opened.callback(os.close, watch)
                watched[watch] = pid
            ready, _, _ = select.select(list(watched), [], [])
            return None if self._stop in ready else watched[ready[0]]

    def close(self) -> None:
        """Give back what the operating system holds for this; nobody may be waiting."""
        os.close(self._stop)
