"""The Envoy of a fleet: started with a plain configuration, told which servers there are, kept running."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
import time
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Self

from trackserve.errors import MissingDependencyError, ServerError
from trackserve.files import write_text
from trackserve.serving.fleet.control import ask
from trackserve.serving.process import Ending, choose_ports, kill_group, spawn
from trackserve.serving.server import RESTART_WINDOW, RESTARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from trackserve.serving.server import Server

TEMPLATE = Path(__file__).with_name("envoy.yaml")
CLUSTERS = ("grpc", "http")
READY_SECONDS = 30.0
"""How long Envoy may take to start, and to see a change of the servers."""
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
    message = "Envoy was not found; install it with: pip install 'trackserve[fleet]'"
    raise MissingDependencyError(message)


class Proxy:
    """A running Envoy with its files in ``folder``: a context manager that starts and stops it.

    It is started anew when it ends by itself, as a :class:`Server` is. A port of 0 picks a free one.
    ``room`` is how many requests of a protocol may be under way: it refuses others before they are sent.
    """

    def __init__(self, folder: Path, address: str, port: int, room: int) -> None:
        self.folder, self.address, self.port, self.room = folder, address, port, room
        self.restarted: list[float] = []
        """When (``time.monotonic``, s) Envoy was started anew."""
        self.failure = ""
        """Why it ended for good, if it did."""
        self.over = threading.Event()
        """Set when it ended for good."""

    @property
    def pid(self) -> int:
        """The process id of Envoy."""
        return self._process.pid

    def __enter__(self) -> Self:
        self._binary = find_envoy()
        self.port = choose_ports(self.address, {"fleet's": self.port})["fleet's"]
        quoted = json.dumps(str(self.folder), ensure_ascii=False)[1:-1]
        text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
            folder=quoted, address=self.address, port=self.port, room=self.room
        )
        write_text(self.folder / "envoy.yaml", text)
        self._write_endpoints([])
        self._ending = Ending()
        self._start()
        self._keeper = threading.Thread(target=self._keep, name="keep-envoy", daemon=True)
        self._keeper.start()
        try:
            self._wait(lambda: self._ask("/ready") == "LIVE\n", "start")
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
            while self.under_way() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            self._end()

    def send_to(self, servers: Sequence[Server], *, new: Server | None = None) -> None:
        """Send requests to these servers only; return once Envoy does so, and finds ``new`` well.

        Raises :class:`ServerError` if it doesn't within some seconds.
        """
        self._write_endpoints(servers)
        ports = {(c, server.ports[c]) for c in CLUSTERS for server in servers}
        wanted = set() if new is None else {(c, new.ports[c]) for c in CLUSTERS}

        def sees() -> bool:
            hosts = self.hosts()
            return hosts.keys() == ports and all(hosts[each] for each in wanted)

        self._wait(sees, "see a change of the servers")

    def hosts(self) -> dict[tuple[str, int], bool]:
        """Return the servers that Envoy knows, by cluster and port, and whether it finds them well."""
        clusters = json.loads(self._ask("/clusters?format=json") or "{}")
        return {
            (cluster["name"], host["address"]["socket_address"]["port_value"]): not any(
                name.startswith(("failed", "pending")) for name in host["health_status"]
            )
            for cluster in clusters.get("cluster_statuses", [])
            if cluster["name"] in CLUSTERS
            for host in cluster.get("host_statuses", [])
        }

    def under_way(self) -> int:
        """Return how many requests clients wait for."""
        text = self._ask("/stats?filter=^http.requests.downstream_rq_active$")
        return int(text.rpartition(":")[2] or 0)

    def _write_endpoints(self, servers: Sequence[Server]) -> None:
        """Write the servers of each cluster; Envoy watches the files."""
        for cluster in CLUSTERS:
            endpoints = [
                {
                    "endpoint": {
                        "address": _address(server, cluster),
                        # gRPC's clients can't tell whether a model is ready; HTTP's can.
                        "health_check_config": {"port_value": server.ports["http"]},
                    }
                }
                for server in servers
            ]
            resource = {
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": endpoints}],
            }
            text = json.dumps({"resources": [resource]}, indent=1)
            write_text(self.folder / f"{cluster}.json", text)

    def _start(self) -> None:
        (self.folder / "admin.sock").unlink(missing_ok=True)
        self._process = spawn(
            [
                *(str(self._binary), "--config-path", str(self.folder / "envoy.yaml")),
                *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
                *("--file-flush-interval-msec", "500"),
            ],
            environment=os.environ,
            folder=self.folder,
            log=self.folder / "envoy.log",
        )

    def _keep(self) -> None:
        """Start Envoy anew whenever it has ended, until it is to stop."""
        while self._ending.wait([self.pid]) is not None:
            kill_group(self._process)
            now = time.monotonic()
            if sum(now - then < RESTART_WINDOW for then in self.restarted) >= RESTARTS:
                lines = (self.folder / "envoy.log").read_text(errors="replace").splitlines()
                said = lines[-1] if lines else "its log says nothing"
                self.failure = f"Envoy ended with status {self._process.returncode}: {said}"
                self.over.set()
                return
            self.restarted.append(now)
            try:
                self._start()
            except OSError as error:
                self.failure = f"Envoy can't be started anew: {error}"
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

    def _ask(self, target: str) -> str:
        """Return what Envoy's administration answers; nothing while Envoy isn't there."""
        try:
            return ask(self.folder / "admin.sock", "GET", target)[1]
        except OSError:
            return ""

    def _end(self) -> None:
        self._ending.stop()
        self._keeper.join()
        kill_group(self._process)
        self._ending.close()
        (self.folder / "admin.sock").unlink(missing_ok=True)


def _address(server: Server, cluster: str) -> dict[str, object]:
    return {"socket_address": {"address": server.address, "port_value": server.ports[cluster]}}
