"""Start a tritonserver on a model repository, wait until it can answer, stop it cleanly."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from trackserve.errors import MissingDependencyError, ServerError
from trackserve.triton.repository import write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from trackserve.bundle import Bundle
    from trackserve.triton.settings import Settings

LOOPBACK = "127.0.0.1"
DRAIN_SECONDS = 30
"""How long a stopping server may take to finish the requests it has accepted."""
_PORTS = ("http", "grpc", "metrics")


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine; ``pip`` is the pytriton package's folder if it is from there."""

    binary: Path
    pip: Path | None


def find_tritonserver() -> Installation:
    """Find the tritonserver on PATH (as in NVIDIA's container), else the pip-installed one.

    Raises :class:`MissingDependencyError` if there is none that can work.
    """
    if found := shutil.which("tritonserver"):
        return Installation(Path(found), None)
    spec = importlib.util.find_spec("pytriton")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / "tritonserver/bin/tritonserver").is_file():
        message = (
            "no tritonserver was found on PATH or in this Python environment; "
            "install one with: pip install 'trackserve[server]'"
        )
        raise MissingDependencyError(message)
    if int(np.__version__.split(".")[0]) > 1:
        message = (
            f"the pip-installed tritonserver needs numpy below 2, found {np.__version__}: its python "
            "backend would return empty tensors; run: pip install 'numpy<2'"
        )
        raise MissingDependencyError(message)
    return Installation(folder / "tritonserver/bin/tritonserver", folder)


class Server:
    """A running tritonserver: a context manager that starts it on entering and stops it on leaving.

    It listens on ``address`` only; a port of 0 picks a free one, and ``http_url``, ``grpc_url`` and
    ``metrics_url`` tell which. Entering returns once every model can answer, and raises
    :class:`ServerError` with the server's own reasons if it can't within ``start_timeout`` seconds.
    The server's log goes to the file ``log`` if that is given. The server never outlives this
    process, however that ends.
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        address: str = LOOPBACK,
        http_port: int = 8000,
        grpc_port: int = 8001,
        metrics_port: int = 8002,
        log: Path | str | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.address = address
        self.ports = dict(zip(_PORTS, (http_port, grpc_port, metrics_port), strict=True))
        self.start_timeout = start_timeout
        self._log = None if log is None else Path(log).absolute()

    @property
    def http_url(self) -> str:
        """Where HTTP clients connect: ``http://host:port``."""
        return f"http://{self._host}:{self.ports['http']}"

    @property
    def grpc_url(self) -> str:
        """Where gRPC clients connect: ``grpc://host:port``."""
        return f"grpc://{self._host}:{self.ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads the metrics."""
        return f"http://{self._host}:{self.ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """The process id of tritonserver."""
        return self._process.pid

    @property
    def _host(self) -> str:
        """The address under which a client on this machine reaches the server."""
        return LOOPBACK if self.address == "0.0.0.0" else self.address

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        installation = find_tritonserver()
        self.ports = choose_ports(self.address, self.ports)
        self._region = f"trackserve_{secrets.token_hex(6)}_"
        self._folder = Path(tempfile.mkdtemp(prefix="trackserve-server-"))
        self._log_path = self._log or self._folder / "log"
        try:
            command = self._command(installation)
            self._process = _spawn(command, _environment(), self._folder, self._log_path)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop(drain=False)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop(drain=True)

    def wait(self) -> None:
        """Block while the server runs; raises :class:`ServerError` if it ends by itself."""
        status = self._process.wait()
        message = f"the server ended by itself with status {status}: {reasons(self.log())}"
        raise ServerError(message)

    def _command(self, installation: Installation) -> list[str]:
        key = secrets.token_hex(16)
        closed = f"shared-memory,trace,logging:trackserve-key={key}"
        command = [
            str(installation.binary),
            f"--model-repository={self.repository}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            f"--http-restricted-api={closed}",
            f"--grpc-restricted-protocol={closed}",
            f"--exit-timeout-secs={DRAIN_SECONDS}",
            "--allow-gpu-metrics=false" if installation.pip else "--allow-gpu-metrics=true",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            f"--backend-config=python,shm-growth-byte-size={16 * 2**20}",
            "--backend-config=python,stub-timeout-seconds=120",
        ]
        for name, port in self.ports.items():
            command += [f"--{name}-address={self.address}", f"--{name}-port={port}"]
        if installation.pip is not None:
            backends = _assemble_backends(installation.pip, self._folder)
            command.append(f"--backend-directory={backends}")
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
            time.sleep(0.05)

    def _answers(self, protocol: str) -> bool:
        """Whether HTTP says that all models are ready, or gRPC's port is open."""
        port = self.ports[protocol]
        try:
            if protocol == "grpc":
                with socket.create_connection((self._host, port), timeout=1):
                    return True
            connection = http.client.HTTPConnection(self._host, port, timeout=1)
            with contextlib.closing(connection):
                connection.request("GET", "/v2/health/ready")
                return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _stop(self, *, drain: bool) -> None:
        """End the server and every process it started; leave no file behind."""
        try:
            if drain:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(DRAIN_SECONDS + 10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for region in Path("/dev/shm").glob(f"{self._region}*"):
                region.unlink(missing_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def serve(
    bundle: Bundle,
    settings: Settings | None = None,
    *,
    address: str = LOOPBACK,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    log: Path | str | None = None,
) -> Iterator[Server]:
    """Serve a bundle with these settings for as long as the context lasts; see :class:`Server`."""
    with tempfile.TemporaryDirectory(prefix="trackserve-repository-") as folder:
        repository = write_repository(bundle, Path(folder) / "models", settings)
        with Server(
            repository,
            address=address,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            log=log,
        ) as server:
            yield server


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does: with :class:`KeyboardInterrupt`.

    A program that serves wraps its work in this, so that both ways of stopping it stop the server.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def choose_ports(address: str, wanted: dict[str, int]) -> dict[str, int]:
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


_STATUS = "Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown"


def reasons(log: str) -> str:
    """Return in one line why a server failed, from the lines of its own log."""
    models = re.findall(rf"failed to load '(\w+)' version \d+: (?:(?:{_STATUS}): )?(.*)", log)
    found = {f"{model}: {_first_line(reason)}" for model, reason in models}
    found |= set(re.findall(r"error while loading shared libraries: .*", log))
    if not found:
        lines = re.findall(r"^error: .*|^E\d{4} .*\] *(.*)", log, flags=re.MULTILINE)
        found = set(re.findall(r"^error: (.*)", log, flags=re.MULTILINE)) or set(lines[-1:])
    return "; ".join(sorted(found)) or "its log gives no reason"


def _first_line(text: str) -> str:
    return re.split(r"\\n|\n", text.rstrip('"'))[0].strip()


def _assemble_backends(pytriton: Path, folder: Path) -> Path:
    """Link the python backend and the stub for this Python version into one backend directory."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = pytriton / "tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        message = f"the pip-installed tritonserver has no python backend for Python {version}"
        raise MissingDependencyError(message)
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for file in (
        *(pytriton / "tritonserver/backends/python").glob("*.so"),
        *(pytriton / "tritonserver/backends/python").glob("*.py"),
        stub,
    ):
        (python / file.name).symlink_to(file)
    return python.parent


def _environment() -> dict[str, str]:
    """Return the server's environment: this Python's packages and library, one thread by default.

    The stub takes its packages from the ``python3`` that is first on PATH. Threads of numerical
    libraries would come on top of those that the settings give to each model.
    """
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    one = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return environment | dict.fromkeys(one, "1")


_START = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that starts another one in its place, to be ended when its parent ends."""


def _spawn(
    command: list[str], environment: dict[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process group of its own that ends when this process does.

    The kernel's parent-death signal comes when the thread that started the child ends, so the child
    is started from a thread that waits for it.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def start_and_wait() -> None:
        try:
            with log.open("wb") as output:
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

    threading.Thread(target=start_and_wait, name="tritonserver", daemon=True).start()
    return started.result()
