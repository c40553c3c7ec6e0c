"""One address in front of servers that others start, on other machines.

with RemoteFleet("servers.txt", bundle) as front:
    front.address       # host:port, for gRPC and HTTP
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trackserve.client.status import FLEET_PATH
from trackserve.errors import InputError, ServerError
from trackserve.serving.fleet.addresses import addresses_from
from trackserve.serving.guard.control import answering
from trackserve.serving.guard.front import Guard
from trackserve.serving.guard.metrics import guard_metrics
from trackserve.serving.guard.remote import Remote
from trackserve.serving.guard.routes import ALIVE_PATH
from trackserve.serving.guard.settings import GuardSettings, limits
from trackserve.serving.guard.tracing import Tracing
from trackserve.serving.process import LOOPBACK
from trackserve.serving.server import DRAIN_SECONDS
from trackserve.serving.service import warn_if_open
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from trackserve.bundle import Bundle
    from trackserve.serving.guard.pieces import Address

LOOK_SECONDS = 1.0
"""How often to read the list of servers, and to see which of them are well."""
SERVERS = "trackserve_front_servers"
ROOM = "trackserve_front_room"


@dataclass(frozen=True)
class RemoteServer:
    """A server on another machine; its guard takes both protocols at one address."""

    address: Address

    @property
    def sockets(self) -> Mapping[str, Address]:
        """Where it listens, by protocol."""
        return {"grpc": self.address, "http": self.address}


class RemoteFleet:
    """The guard in front of servers that run elsewhere: a context manager that starts and stops it.

    ``servers`` names them, see :mod:`trackserve.serving.fleet.addresses`, and is read every second: they
    come and go as they like. ``bundle``, ``others`` and ``settings`` are theirs: they say what a request may be, and
    how many may be in flight. The front admits as many as the servers that are well work on and let wait,
    and refuses others at once. ``remote`` is what the servers ask for. Files and logs are in ``folder``.
    """

    def __init__(
        self,
        servers: str,
        bundle: Bundle,
        settings: Settings | None = None,
        *,
        others: Sequence[Bundle] = (),
        guard: GuardSettings | None = None,
        remote: Remote | None = None,
        folder: Path | str = "front",
        address: str = LOOPBACK,
        port: int = 8001,
    ) -> None:
        settings, guard = settings or Settings(), guard or GuardSettings()
        if settings.shared_memory:
            message = "a client's shared memory is known to its own machine only; leave it out"
            raise InputError(message)
        self.folder = Path(folder).absolute()
        self._servers = addresses_from(servers)
        warn_if_open(address, guard)
        self.per_server = (1 + len(others)) * (settings.at_once + settings.max_queue)
        """How many requests of a protocol a server works on and lets wait."""
        self.guard = Guard(
            self.folder,
            address,
            {"front's": port},
            room=0,
            limits=limits((bundle, *others), settings, guard),
            settings=guard,
            access_log=True,
            remote=remote or Remote(),
            tracing=Tracing.of(settings),
        )
        self.known: list[Address] = []
        """The servers of the list, well or not."""
        self.problem = ""
        """Why the list can't be read now; the servers that it had before still get requests."""
        self.room = 0
        """How many requests of a protocol may be in flight now."""
        self._seen_restarts = -1
        self._stopping = threading.Event()

    @property
    def address(self) -> str:
        """Where clients connect: ``host:port``, for gRPC and HTTP."""
        return self.guard.where

    @property
    def urls(self) -> dict[str, str]:
        """Where clients of each protocol connect."""
        return self.guard.urls

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        pages = {FLEET_PATH: self.status, "/metrics": self.metrics, ALIVE_PATH: self.alive}
        with ExitStack() as running:
            running.enter_context(answering(self.folder, pages))
            running.enter_context(self.guard)
            self.look()
            watcher = threading.Thread(target=self._watch, name="watch-servers", daemon=True)
            watcher.start()
            running.callback(watcher.join)
            running.callback(self._stopping.set)
            self._running = running.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._running:
            self.guard.drain()
            deadline = time.monotonic() + DRAIN_SECONDS
            while self.guard.in_flight() and time.monotonic() < deadline:
                time.sleep(0.02)

    def wait(self) -> None:
        """Block while it runs; raises :class:`ServerError` once Envoy has ended for good."""
        self.guard.over.wait()
        raise ServerError(self.guard.failure)

    def look(self) -> None:
        """Read the list of servers and send requests to these; make room for those that are well."""
        try:
            found = self._servers()
            self.problem = ""
        except (InputError, OSError) as error:  # a name server may be away for a while
            found, self.problem = self.known, str(error)
        if found != self.known:
            self.guard.send_to([RemoteServer(each) for each in found])
            self.known = found
        room = len(self.well()) * self.per_server
        restarts = len(self.guard.restarted)  # a new Envoy has the room of its file
        if (room, restarts) != (self.room, self._seen_restarts):
            self.guard.make_room(room)
            self.room, self._seen_restarts = room, restarts

    def well(self) -> list[str]:
        """Return the servers that Envoy finds well for both protocols."""
        hosts = self.guard.hosts()
        return sorted(
            {
                place
                for _, place in hosts
                if hosts.get(("grpc", place)) and hosts.get(("http", place))
            }
        )

    def alive(self) -> str:
        """Return in words whether there are servers; the front itself lives if it says so."""
        return f"alive: {len(self.well())} of {len(self.known)} servers are well\n"

    def status(self) -> str:
        """Return in words which servers there are."""
        well = self.well()
        lines = [
            f"front of {len(self.known)} servers at {self.address}: {len(well)} are well, room for "
            f"{self.room} requests; Envoy restarted {len(self.guard.restarted)} times"
        ]
        lines += [f"{each}  {'well' if str(each) in well else 'down'}" for each in self.known]
        problems = (("the list of servers", self.problem), ("credentials", self.guard.problem))
        lines += [f"{what}: {problem}" for what, problem in problems if problem]
        return "\n".join(lines)

    def metrics(self) -> str:
        """Return the guard's metrics and how many servers there are."""
        well = len(self.well())
        own = [
            f"# HELP {SERVERS} servers on the front's list, by whether they are well",
            f"# TYPE {SERVERS} gauge",
            f'{SERVERS}{{state="well"}} {well}',
            f'{SERVERS}{{state="down"}} {len(self.known) - well}',
            f"# HELP {ROOM} requests of a protocol that may be in flight",
            f"# TYPE {ROOM} gauge",
            f"{ROOM} {self.room}",
        ]
        return guard_metrics(self.guard) + "\n".join(own) + "\n"

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except ServerError as error:  # Envoy is being restarted, or has ended for good
                self.problem = str(error)
