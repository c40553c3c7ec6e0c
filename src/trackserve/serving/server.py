"""Start a tritonserver on a model repository, keep it answering, stop it cleanly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trackserve.contract.draining import FRONTS, STOP
from trackserve.contract.trace import TRACEPARENT
from trackserve.engines.registry import engine
from trackserve.errors import InputError, MissingDependencyError, ServerError
from trackserve.serving.installation import (
    Installation,
    assemble_backends,
    find_tritonserver,
    server_environment,
)
from trackserve.serving.leftovers import OwnFolder, remove_leftovers
from trackserve.serving.process import (
    RESTART_WINDOW,
    RESTARTS,
    Ending,
    children,
    kill_group,
    living,
    spawn,
)
from trackserve.serving.sockets import ask, connected

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from trackserve.bundle import Bundle
    from trackserve.serving.settings import Settings

DRAIN_SECONDS = 30
"""How long a stopping server may take to finish the requests it has accepted."""
CLOSE_SECONDS = 0.5
"""How long connections may stay open then, whose answers Triton may still be writing."""
EXIT_SECONDS = 10
"""How long Triton may take then; it would wait for good for a request that a gRPC client gave up."""
ORDER_SECONDS = 0.3
"""Within which tritonserver ends if it takes a model's process along, which may be seen to end first."""
RESTART_PAUSE, LATE_RESTART_PAUSE = 1.0, 15.0
"""Seconds before a start that follows one that failed, and before one more than RESTARTS in a short time."""
PROTOCOLS = ("http", "grpc", "metrics")
GRPC_PORT = 8001
"""A part of the name of gRPC's socket, which Triton makes of address and port."""


class Server:
    """A running tritonserver: a context manager that starts it on entering and stops it on leaving.

    It listens on Unix sockets (``sockets``) in a folder of its owner alone, so nobody else reaches it but
    through what is put in front. Entering returns once every model can answer, and raises
    :class:`ServerError` with the server's own reasons if it can't within ``start_timeout`` seconds.
    The server's log goes to the file ``log`` if that is given. The server never outlives this
    process, however that ends.

    Triton doesn't replace a model's process that has died: it stays ready and fails every request
    that it sends there. So where tritonserver or one of its models' processes ends by itself, the
    server is restarted on the same sockets: at once, and after a pause if it was so ``restarts`` times
    within five minutes. It ends for good when as many starts in a row have failed, or with ``restarts`` 0.
    ``died`` is called at once when a process has ended. If ``traced``, models are handed each request's
    header ``traceparent``.
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        log: Path | str | None = None,
        start_timeout: float = 120.0,
        restarts: int = RESTARTS,
        died: Callable[[], None] | None = None,
        traced: bool = False,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.start_timeout = start_timeout
        self.restarts = restarts
        self._died = died or (lambda: None)
        self._traced = traced
        self.restarted: list[float] = []
        """When (``time.monotonic``, s) the server was restarted."""
        self._log = None if log is None else Path(log).absolute()

    @property
    def sockets(self) -> dict[str, Path]:
        """Where the server listens, by protocol."""
        folder = self._own.path
        return {
            "http": folder / "http",
            "grpc": folder / f"grpc:{GRPC_PORT}",
            "metrics": folder / "metrics",
        }

    @property
    def failure(self) -> str:
        """Why the server has ended for good, nothing if it hasn't."""
        return self._failure

    @property
    def pid(self) -> int:
        """The process id of tritonserver."""
        return self._process.pid

    def log(self) -> str:
        """Return what the server has logged so far."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace")

    def __enter__(self) -> Self:
        self._installation = find_tritonserver()
        remove_leftovers()
        self._own = OwnFolder()
        self._folder = self._own.path
        self._fronts = self._folder / "fronts"
        self._log_path = self._log or self._folder / "log"
        self._ending, self._stopping, self._over = Ending(), threading.Event(), threading.Event()
        self._failure = ""
        try:
            with self._log_path.open("ab") as log:  # what earlier servers wrote stays
                self._log_begin = log.tell()
            if self._installation.pip is not None:
                assemble_backends(self._installation.pip, self._folder)
            self._start()
        except BaseException:
            self._own.__exit__(None, None, None)
            self._ending.close()
            raise
        self._keeper = threading.Thread(target=self._keep, name="keep-tritonserver", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._ending.stop()
        self._keeper.join()
        try:
            self._end(drain=not self._failure)
        finally:
            self._own.__exit__(None, None, None)
            self._ending.close()

    def wait(self) -> None:
        """Block while the server runs; raises :class:`ServerError` if it ends for good."""
        self._over.wait()
        raise ServerError(self._failure)

    def _start(self) -> None:
        """Start the processes and return once every model can answer."""
        shutil.rmtree(self._fronts, ignore_errors=True)
        self._fronts.mkdir()
        for path in self.sockets.values():
            path.unlink(missing_ok=True)
        self._region = f"trackserve_{secrets.token_hex(6)}_"
        self._own.name_regions(self._region)
        began = time.time()
        self._process = spawn(
            self._command(self._installation),
            environment=server_environment() | {FRONTS: str(self._fronts)},
            folder=self._folder,
            log=self._log_path,
        )
        try:
            self._wait_until_ready()
            self._own.close_regions()
        except BaseException:
            self._end(drain=False)
            raise
        finally:
            self._own.name_environments(began)
        self._processes = [self.pid, *children(self.pid)]

    def _keep(self) -> None:
        """Restart the server whenever one of its processes has ended, until it is to stop."""
        while (ended := self._ending.wait(self._processes)) is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason not to restart
                self._died()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ORDER_SECONDS)
                ended = self.pid
            self._end(drain=False)
            status = self._process.returncode
            what = f"status {status}" if ended == self.pid else f"model process {ended} gone"
            if not self._restart(what):
                return

    def _restart(self, what: str) -> bool:
        """Start the server that ended in this way until it is ready; else record why it ended for good."""
        failure = f"the server ended by itself with {what}: {reasons(self.log())}"
        failed = 0
        while not self._stopping.is_set():
            if failed >= self.restarts:
                self._failure = failure
                self._over.set()
                return False
            recent = sum(time.monotonic() - then < RESTART_WINDOW for then in self.restarted)
            # Clients may be what ends it, one after the other: that must not end it for good.
            if recent >= self.restarts and self._stopping.wait(LATE_RESTART_PAUSE):
                return False
            self.restarted.append(time.monotonic())
            self._note(event="restart", reason=what)
            try:
                self._start()
            except (ServerError, OSError) as error:
                failed += 1
                failure = f"the server ended by itself with {what}; the restart failed: {error}"
                self._stopping.wait(RESTART_PAUSE)
            else:
                return True
        return False

    def _note(self, **what: str) -> None:
        """Add a line of our own to the server's log, as JSON."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), **what})
        with self._log_path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _command(self, installation: Installation) -> list[str]:
        command = [
            str(installation.binary),
            f"--model-repository={self.repository}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={EXIT_SECONDS}",
            "--allow-gpu-metrics=false" if installation.pip else "--allow-gpu-metrics=true",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            f"--backend-config=python,shm-growth-byte-size={16 * 2**20}",
            "--backend-config=python,stub-timeout-seconds=120",
            # A served model holds a thread for each event in flight; 32 is Triton's default.
            f"--backend-config=python,thread-pool-size={max(32, 8 + len(os.sched_getaffinity(0)))}",
        ]
        for name in PROTOCOLS:
            command += [f"--{name}-address=unix:{self._folder / name}"]
        command += [f"--grpc-port={GRPC_PORT}"]
        if self._traced:
            command += [
                f"--{name}-header-forward-pattern={TRACEPARENT}" for name in ("http", "grpc")
            ]
        if installation.pip is not None:
            command.append(f"--backend-directory={self._folder / 'backends'}")
        return command

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while not (self._answers("http") and self._answers("grpc")):
            if self._process.poll() is not None:
                message = f"the server did not start: {reasons(self.log())}"
                raise ServerError(message)
            if time.monotonic() > deadline:
                message = (
                    f"the server was not ready within {self.start_timeout:g} s: "
                    f"{reasons(self.log())}"
                )
                raise ServerError(message)
            if self._stopping.wait(0.05):
                message = "the server was stopped before it was ready"
                raise ServerError(message)

    def _answers(self, protocol: str) -> bool:
        """Whether HTTP reports all models ready, or gRPC's socket is open."""
        path = self.sockets[protocol]
        try:
            if protocol == "http":
                return ask(path, "GET", "/v2/health/ready", timeout=1)[0] == http.client.OK
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
        except OSError:
            return False
        return True

    def _end(self, *, drain: bool) -> None:
        """End the server and every process it started; leave no shared memory behind."""
        try:
            # With a dead model process Triton would wait for it, and so would the clients of the others.
            # Triton takes two seconds to end, looking once in each. Nobody needs to wait for that where
            # every answer has arrived.
            if drain and self._drain() and not self._closed():
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(EXIT_SECONDS + 5)
        finally:
            kill_group(self._process)
            self._own.remove_regions()

    def _drain(self) -> bool:
        """Let the served models finish what they have taken; return whether all processes still live."""
        deadline = time.monotonic() + DRAIN_SECONDS
        (self._fronts / STOP).touch()
        while {each.name for each in self._fronts.iterdir()} != {STOP}:
            if not self._lives():
                return False
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return self._lives()

    def _closed(self) -> bool:
        """Wait a moment for clients' connections to close; return whether all are: each answer is there."""
        deadline = time.monotonic() + CLOSE_SECONDS
        while connected(self.sockets["http"], self.sockets["grpc"]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _lives(self) -> bool:
        """Whether tritonserver and its models' processes all live."""
        return self._process.poll() is None and set(self._processes[1:]) <= set(living(self.pid))


def computed_here(bundle: Bundle, settings: Settings) -> Settings:
    """Return the settings with the precision that the engine computes in on this machine."""
    asked, chosen = settings.precision, engine(settings.engine)
    if reason := chosen.unavailable():
        raise MissingDependencyError(reason)
    if settings.trace:
        check_exporter()
    here = chosen.devices()
    device = here[0] if settings.device == "auto" else settings.device
    for name in device.split(","):
        if name not in here:
            message = (
                f"the {chosen.name} engine has no device {name!r} here; it has {', '.join(here)}"
            )
            raise InputError(message)
    first = device.split(",")[0]
    nearest = chosen.nearest_precision(bundle.precision if asked == "bundle" else asked, first)
    if asked not in {"bundle", nearest}:
        message = f"this machine has no {asked}; the server computes in {nearest}"
        warnings.warn(message, stacklevel=3)
    return replace(settings, device=device, precision=nearest)


def check_exporter() -> None:
    """Raise :class:`MissingDependencyError` unless the models can send spans to a collector."""
    try:
        metadata.version("opentelemetry-exporter-otlp-proto-http")
    except metadata.PackageNotFoundError:
        message = (
            "spans need OpenTelemetry's exporter; install it with: pip install 'trackserve[trace]'"
        )
        raise MissingDependencyError(message) from None


_STATUS = "Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown"


def reasons(log: str) -> str:
    """Return in one line why a server failed, from the lines of its own log."""
    models = re.findall(rf"failed to load '([\w.-]+)' version \d+: (?:(?:{_STATUS}): )?(.*)", log)
    found = {f"{model}: {_first_line(reason)}" for model, reason in models}
    found |= set(re.findall(r"error while loading shared libraries: .*", log))
    if not found:
        lines = re.findall(r"^error: .*|^E\d{4} .*\] *(.*)", log, flags=re.MULTILINE)
        found = set(re.findall(r"^error: (.*)", log, flags=re.MULTILINE)) or set(lines[-1:])
    return "; ".join(sorted(found)) or "its log gives no reason"


def _first_line(text: str) -> str:
    return re.split(r"\\n|\n", text.rstrip('"'))[0].strip()
