"""Several tritonservers on this machine behind one address, which can be rolled to another bundle.

with Fleet(bundle, servers=2) as fleet:
    fleet.address       # host:port, for gRPC and HTTP
    fleet.roll(better)  # no client sees an error
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trackserve.bundle.named import named_bundle
from trackserve.client.status import FLEET_PATH, Status, read_status
from trackserve.errors import InputError, ServerError
from trackserve.serving.fleet.control import ROLL_PATH
from trackserve.serving.guard.control import answering
from trackserve.serving.guard.front import Guard
from trackserve.serving.guard.metrics import guard_metrics, merged, server_metrics
from trackserve.serving.guard.settings import GuardSettings, limits
from trackserve.serving.guard.tracing import Tracing
from trackserve.serving.process import LOOPBACK
from trackserve.serving.repository import bundle_names
from trackserve.serving.server import computed_here
from trackserve.serving.service import hidden_server, warn_if_open
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from trackserve.bundle import Bundle
    from trackserve.serving.server import Server

LOOK_SECONDS = 1.0
"""How often to look whether any server is left."""


@dataclass(frozen=True, eq=False)
class Member:
    """A server of a fleet; its name is that of its log."""

    name: str
    server: Server
    running: ExitStack


class Fleet:
    """Running tritonservers behind Envoy: a context manager that starts and stops all of them.

    Clients reach them at ``port`` of ``address`` by gRPC and HTTP, through the guard; the servers
    themselves listen on sockets that only this user reaches. Envoy's configuration, its log and those
    of the servers are in ``folder``. Entering returns once every server can answer, and raises :class:`ServerError` if one
    can't. Whatever ends by itself is restarted, as by :class:`Server`.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings | None = None,
        *,
        guard: GuardSettings | None = None,
        others: Sequence[Bundle] = (),
        servers: int = 2,
        folder: Path | str = "fleet",
        address: str = LOOPBACK,
        port: int = 8001,
    ) -> None:
        if servers < 1:
            message = f"servers is {servers}; expected at least 1"
            raise InputError(message)
        if settings is not None and settings.shared_memory:
            message = (
                "a client's shared memory is known to one server only; leave it out of a fleet"
            )
            raise InputError(message)
        self.bundle, self.others = bundle, tuple(others)
        bundle_names((bundle, *others))
        self._asked = settings or Settings()
        self.settings = computed_here(bundle, self._asked)
        self.folder = Path(folder).absolute()
        guard = guard or GuardSettings()
        warn_if_open(address, guard)
        room = servers * (1 + len(others)) * (self.settings.at_once + self.settings.max_queue)
        self.guard = Guard(
            self.folder,
            address,
            {"fleet's": port},
            room=room,
            limits=limits((bundle, *others), self.settings, guard),
            settings=guard,
            access_log=True,
            tracing=Tracing.of(self.settings),
        )
        self.members: list[Member] = []
        self._count, self._started = servers, 0
        self._changing = threading.Lock()
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
        with ExitStack() as running:
            pages = {FLEET_PATH: self.status, "/metrics": self.metrics}
            running.enter_context(answering(self.folder, pages, {ROLL_PATH: self._roll_to}))
            running.enter_context(self.guard)
            running.callback(self._stop)
            with self._changing:
                for _ in range(self._count):
                    self.members.append(self._start((self.bundle, *self.others)))
            self._running = running.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def wait(self) -> None:
        """Block while the fleet runs; raises :class:`ServerError` once the proxy or every server ended."""
        while not self.guard.over.wait(LOOK_SECONDS):
            failures = [member.server.failure for member in self.members]
            if all(failures):
                message = f"every server has ended; the last one: {failures[-1]}"
                raise ServerError(message)
        raise ServerError(self.guard.failure)

    def roll(self, bundle: Bundle) -> str:
        """Replace one server after the other by one with another bundle; return what was done.

        It takes the place of the bundle of its name, else of the first one. Each server is stopped
        once a new one answers in its place, and answers first what it has taken. Raises :class:`InputError` for a bundle whose columns or scales clients do not know, and
        :class:`ServerError` if a server can't start, or the fleet is to stop: those that weren't
        replaced yet go on then.
        """
        served = [self.bundle, *self.others]
        place = next((i for i, each in enumerate(served) if each.name == bundle.name), 0)
        if bundle.features != served[place].features:
            message = (
                f"{bundle.path} has other features than the bundle {served[place].name} that is served; clients keep what "
                "they have read of these, so start another fleet for it"
            )
            raise InputError(message)
        if not self._changing.acquire(blocking=False):
            message = "the fleet is being started, rolled or stopped; try again when that is done"
            raise ServerError(message)
        served[place] = bundle
        try:
            for number, old in enumerate(tuple(self.members)):
                if self._stopping.is_set():
                    message = "the fleet is being stopped"
                    raise ServerError(message)
                self.members[number] = self._start(served)
                with old.running:
                    self.guard.send_to(self._servers())
            self.bundle, *others = served
            self.others = tuple(others)
        finally:
            self._changing.release()
        names = ", ".join(member.name for member in self.members)
        return f"rolled to bundle {bundle.name} ({bundle.digest()}): {names}"

    def status(self) -> str:
        """Return in words what each server runs and does."""
        members = tuple(self.members)
        with ThreadPoolExecutor(self._count) as pool:
            found = list(pool.map(_watch, members))
        rate = sum(s.events_per_s for each in found if isinstance(each, tuple) for s in each)
        lines = [
            f"fleet of {len(members)} servers at {self.address}: {rate:.1f} events/s; "
            f"Envoy {_restarts(self.guard)}"
        ]
        for member, status in zip(members, found, strict=True):
            server = member.server
            lines += [
                f"{member.name}  {_restarts(server)}",
                status if isinstance(status, str) else "\n".join(map(str, status)),
            ]
        return "\n".join(lines)

    def metrics(self) -> str:
        """Return the metrics of all servers, each sample with its server's name, and the guard's."""
        pages = {m.name: server_metrics(m.server.sockets["metrics"]) for m in tuple(self.members)}
        return merged(pages) + guard_metrics(self.guard)

    def _roll_to(self, place: str) -> str:
        return self.roll(named_bundle(place))

    def _servers(self) -> list[Server]:
        return [member.server for member in self.members]

    def _start(self, bundles: Sequence[Bundle]) -> Member:
        """Start a server and send requests to it, beside the others."""
        first, *others = bundles
        self._started += 1
        name = f"server-{self._started}"
        with ExitStack() as running:
            server = running.enter_context(
                hidden_server(
                    first,
                    computed_here(first, self._asked),
                    others=[(each, computed_here(each, self._asked)) for each in others],
                    log=self.folder / f"{name}.log",
                    died=self.guard.note_death,
                )
            )
            try:
                self.guard.send_to([*self._servers(), server], new=server)
            except ServerError:
                self.guard.send_to(self._servers())
                raise
            return Member(name, server, running.pop_all())

    def _stop(self) -> None:
        """Let all servers answer what they have taken, and end, at the same time."""
        self._stopping.set()
        self._changing.acquire()  # for good: nothing changes any more
        with ThreadPoolExecutor(self._count) as pool:
            with suppress(ServerError):  # there may be no proxy any more
                self.guard.send_to([])
            list(pool.map(lambda member: member.running.close(), self.members))


def _watch(member: Member) -> tuple[Status, ...] | str:
    server = member.server
    try:
        return read_status(*(f"unix:{server.sockets[name]}" for name in ("http", "metrics")))
    except ServerError as error:
        return f"  down: {server.failure or error}"


def _restarts(what: Server | Guard) -> str:
    return f"restarted {len(what.restarted)} times"
