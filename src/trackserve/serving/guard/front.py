"""The guard's Envoy: configured, started, given its servers and certificates, kept running."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trackserve.errors import MissingDependencyError, ServerError
from trackserve.files import write_text
from trackserve.serving.guard.clusters import CLUSTERS, endpoints
from trackserve.serving.guard.config import envoy_config
from trackserve.serving.guard.credentials import Credentials
from trackserve.serving.guard.pieces import Address, Front
from trackserve.serving.process import (
    LOOPBACK,
    RESTART_WINDOW,
    RESTARTS,
    Ending,
    choose_ports,
    kill_group,
    spawn,
)
from trackserve.serving.sockets import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Protocol

    from trackserve.serving.guard.pieces import Place
    from trackserve.serving.guard.remote import Remote
    from trackserve.serving.guard.settings import GuardSettings
    from trackserve.serving.guard.tracing import Tracing

    class Listening(Protocol):
        """A server, whether on this machine or another."""

        @property
        def sockets(self) -> Mapping[str, Place]:
            """Where it listens, by protocol."""


READY_SECONDS = 30.0
"""How long Envoy may take to start, and to see a change of the servers."""
DEATHS = "deaths"
"""The file in which the last deaths of servers' processes are noted, a time a line."""
DEATHS_KEPT = 100
LAST_SECONDS = 5.0
"""How long a stopping Envoy may take to send the last answers."""


def find_envoy() -> Path:
    """Find Envoy: the pip-installed one, else the one on PATH.

    Raises :class:`MissingDependencyError` if there is none.
    """
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (binary := Path(folder, "_bin/envoy")).is_file():
            return binary
    if found := shutil.which("envoy"):
        return Path(found)
    message = "Envoy was not found; install it with: pip install 'trackserve[server]'"
    raise MissingDependencyError(message)


class Guard:
    """A running Envoy with its files in ``folder``: a context manager that starts and stops it.

    It listens on the named ``ports`` of ``address`` (0 picks a free one), each for gRPC and HTTP, and is
    restarted when it ends by itself, as a :class:`Server` is. ``room`` is how many requests of a
    protocol may be in flight: it refuses others before they are sent. ``limits`` are those of
    :func:`trackserve.serving.guard.settings.limits`.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        ports: Mapping[str, int],
        *,
        room: int,
        limits: Mapping[str, Any],
        settings: GuardSettings,
        log: Path | str | None = None,
        access_log: bool = False,
        remote: Remote | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.folder, self.address, self.ports = folder, address, dict(ports)
        # The room of servers that come and go changes, and no sentence can name it.
        self._limits = {**limits, "room": room if remote is None else False}
        self._front = Front(
            folder,
            address,
            [],
            room,
            limits["most_bytes"],
            tls=settings.tls,
            client_certificates=settings.client_ca is not None,
            access_log=folder / "access.log" if access_log else None,
            remote=remote,
            tracing=tracing,
        )
        self._log = folder / "envoy.log" if log is None else Path(log).absolute()
        self._credentials = Credentials(folder, settings, remote)
        self.restarted: list[float] = []
        """When (``time.monotonic``, s) Envoy was restarted."""
        self.failure = ""
        """Why it ended for good, if it did."""
        self._noting = threading.Lock()
        self.over = threading.Event()
        """Set when it ended for good."""

    @property
    def where(self) -> str:
        """Where clients of a guard with one port connect: ``host:port``, for gRPC and HTTP."""
        (port,) = self.ports.values()
        return f"{LOOPBACK if self.address == '0.0.0.0' else self.address}:{port}"

    @property
    def urls(self) -> dict[str, str]:
        """Where clients of each protocol connect, at a guard with one port."""
        secure = "s" if self._front.tls else ""
        return {scheme: f"{scheme}{secure}://{self.where}" for scheme in ("grpc", "http")}

    @property
    def problem(self) -> str:
        """Why a change of certificates or tokens couldn't be taken, nothing if all could."""
        return self._credentials.problem

    @property
    def pid(self) -> int:
        """The process id of Envoy."""
        return self._process.pid

    def __enter__(self) -> Self:
        self._binary = find_envoy()
        self.ports = choose_ports(self.address, self.ports)
        front = replace(self._front, ports=list(self.ports.values()))
        write_text(self.folder / "envoy.json", json.dumps(envoy_config(front), indent=1))
        self._credentials.write()
        tokens = self._credentials.tokens_file
        limits = {
            **self._limits,
            "deaths": str(self.folder / DEATHS),
            "tokens": str(tokens) if tokens else False,
            "client_certificates": front.client_certificates,
        }
        write_text(self.folder / "limits.json", json.dumps(limits, indent=1))
        self._write_endpoints([])
        self._ending = Ending()
        self._start()
        self._keeper = threading.Thread(target=self._keep, name="keep-envoy", daemon=True)
        self._keeper.start()
        try:
            self._wait(lambda: self.admin("/ready") == "LIVE\n", "start")
            self._credentials.watch()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            deadline = time.monotonic() + LAST_SECONDS
            while self.in_flight() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            self._end()

    def send_to(self, servers: Sequence[Listening], *, new: Listening | None = None) -> None:
        """Send requests to these servers only; return once Envoy does so, and finds ``new`` well.

        Raises :class:`ServerError` if it doesn't within some seconds.
        """
        self._write_endpoints(servers)
        sockets = {(c, str(server.sockets[c])) for c in CLUSTERS for server in servers}
        wanted = set() if new is None else {(c, str(new.sockets[c])) for c in CLUSTERS}

        def sees() -> bool:
            hosts = self.hosts()
            return hosts.keys() == sockets and all(hosts[each] for each in wanted)

        self._wait(sees, "see a change of the servers")

    def note_death(self) -> None:
        """Note that a process of a server has died: what was in work then is suspected of it."""
        path = self.folder / DEATHS
        with self._noting:
            before = path.read_text().splitlines() if path.exists() else []
            write_text(path, "\n".join((*before[-DEATHS_KEPT:], f"{time.time():.3f}", "")))

    def make_room(self, requests: int) -> None:
        """Let that many requests of a protocol be in flight from now on."""
        keys = (f"circuit_breakers.{cluster}.default.max_requests" for cluster in CLUSTERS)
        changes = "&".join(f"{key}={requests}" for key in keys)
        self.admin(f"/runtime_modify?{changes}", "POST")

    def drain(self) -> None:
        """Take no more connections, and let clients leave those that they have, by GOAWAY."""
        self.admin("/drain_listeners", "POST")

    def hosts(self) -> dict[tuple[str, str], bool]:
        """Return the servers that Envoy knows, by cluster and place, and whether it finds them well."""
        clusters = json.loads(self.admin("/clusters?format=json") or "{}")
        return {
            (cluster["name"], _place(host["address"])): not any(
                name.startswith(("failed", "pending")) for name in host["health_status"]
            )
            for cluster in clusters.get("cluster_statuses", [])
            if cluster["name"] in CLUSTERS
            for host in cluster.get("host_statuses", [])
        }

    def in_flight(self) -> int:
        """Return how many requests clients wait for."""
        text = self.admin("/stats?filter=^http.requests.downstream_rq_active$")
        return int(text.rpartition(":")[2] or 0)

    def admin(self, target: str, method: str = "GET") -> str:
        """Return what Envoy's administration answers; nothing while Envoy isn't there."""
        try:
            return ask(self.folder / "admin.sock", method, target, timeout=READY_SECONDS)[1]
        except OSError:
            return ""

    def _write_endpoints(self, servers: Sequence[Listening]) -> None:
        """Write the servers of each cluster; Envoy watches the files."""
        for cluster in CLUSTERS:
            resource = endpoints(cluster, [server.sockets for server in servers])
            write_text(self.folder / f"{cluster}.json", json.dumps(resource, indent=1))

    def _start(self) -> None:
        (self.folder / "admin.sock").unlink(missing_ok=True)
        self._process = spawn(
            [
                *(str(self._binary), "--config-path", str(self.folder / "envoy.json")),
                *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
                *("--file-flush-interval-msec", "500"),
            ],
            environment=os.environ,
            folder=self.folder,
            log=self._log,
        )

    def _keep(self) -> None:
        """Restart Envoy whenever it has ended, until it is to stop."""
        while self._ending.wait([self.pid]) is not None:
            kill_group(self._process)
            now = time.monotonic()
            if sum(now - then < RESTART_WINDOW for then in self.restarted) >= RESTARTS:
                lines = self._log.read_text(errors="replace").splitlines()
                said = lines[-1] if lines else "its log says nothing"
                self.failure = f"Envoy ended with status {self._process.returncode}: {said}"
                self.over.set()
                return
            self.restarted.append(now)
            try:
                self._start()
            except OSError as error:
                self.failure = f"Envoy can't be restarted: {error}"
                self.over.set()
                return

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not done():
            if self.failure or time.monotonic() > deadline:
                message = (
                    f"Envoy didn't {what}: {self.failure or f'{READY_SECONDS:g} s have passed'}"
                )
                raise ServerError(message)
            time.sleep(0.02)

    def _end(self) -> None:
        self._credentials.stop()
        self._ending.stop()
        self._keeper.join()
        kill_group(self._process)
        self._ending.close()
        (self.folder / "admin.sock").unlink(missing_ok=True)


def _place(address: Mapping[str, Any]) -> str:
    """Return where a server listens, as Envoy names it."""
    if "pipe" in address:
        return str(address["pipe"]["path"])
    found = address["socket_address"]
    return str(Address(found["address"], found["port_value"]))
