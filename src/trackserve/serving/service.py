"""Serve a bundle: a tritonserver that nobody reaches, and the guard in front of it."""

from __future__ import annotations

import contextlib
import ipaddress
import warnings
from typing import TYPE_CHECKING

from trackserve.errors import ServerError
from trackserve.serving.alive import aliveness
from trackserve.serving.guard.control import answering
from trackserve.serving.guard.front import Guard
from trackserve.serving.guard.metrics import guard_metrics, server_metrics
from trackserve.serving.guard.routes import ALIVE_PATH
from trackserve.serving.guard.settings import GuardSettings, limits
from trackserve.serving.guard.tracing import Tracing
from trackserve.serving.leftovers import OwnFolder
from trackserve.serving.process import LOOPBACK, RESTARTS
from trackserve.serving.repository import write_repository
from trackserve.serving.server import Server, computed_here
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle

LOOK_SECONDS = 0.2
"""How often to look whether server and guard still run."""


class Service:
    """A server that runs behind its guard; made by :func:`serve`.

    ``http_url``, ``grpc_url`` and ``metrics_url`` are where clients connect. Each port takes both
    protocols.
    """

    def __init__(self, server: Server, guard: Guard, *, tls: bool) -> None:
        self.server, self.guard = server, guard
        self._secure = "s" if tls else ""

    @property
    def ports(self) -> dict[str, int]:
        """The ports that the guard listens on: ``http``, ``grpc`` and ``metrics``."""
        return self.guard.ports

    @property
    def http_url(self) -> str:
        """Where HTTP clients connect: ``http://host:port``, with TLS ``https://host:port``."""
        return f"http{self._secure}://{self._host}:{self.ports['http']}"

    @property
    def grpc_url(self) -> str:
        """Where gRPC clients connect: ``grpc://host:port``, with TLS ``grpcs://host:port``."""
        return f"grpc{self._secure}://{self._host}:{self.ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads the metrics."""
        return f"http{self._secure}://{self._host}:{self.ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """The process id of tritonserver."""
        return self.server.pid

    @property
    def restarted(self) -> list[float]:
        """When (``time.monotonic``, s) the server was restarted."""
        return self.server.restarted

    @property
    def failure(self) -> str:
        """Why the service has ended for good, nothing if it hasn't."""
        return self.server.failure or self.guard.failure

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self.server.log()

    def wait(self) -> None:
        """Block while the service runs; raises :class:`ServerError` if it ends for good."""
        while not self.guard.over.wait(LOOK_SECONDS) and not self.server.failure:
            pass
        raise ServerError(self.failure)

    def metrics(self) -> str:
        """Return the metrics page: the server's and the guard's."""
        return server_metrics(self.server.sockets["metrics"]) + guard_metrics(self.guard)

    @property
    def _host(self) -> str:
        """The address under which a client on this machine reaches the guard."""
        return LOOPBACK if self.guard.address == "0.0.0.0" else self.guard.address


@contextlib.contextmanager
def hidden_server(
    bundle: Bundle,
    settings: Settings,
    *,
    others: Sequence[tuple[Bundle, Settings]] = (),
    log: Path | str | None = None,
    restarts: int = RESTARTS,
    died: Callable[[], None] | None = None,
) -> Iterator[Server]:
    """Run a server of a bundle, and of others, that only this user's processes reach, for as long as the context lasts."""
    with OwnFolder() as own:
        repository = write_repository(bundle, own.path / "models", settings, others=others)
        traced = bool(settings.trace)
        with Server(repository, log=log, restarts=restarts, died=died, traced=traced) as server:
            yield server


@contextlib.contextmanager
def serve(
    bundle: Bundle,
    settings: Settings | None = None,
    *,
    others: Sequence[Bundle] = (),
    guard: GuardSettings | None = None,
    address: str = LOOPBACK,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    log: Path | str | None = None,
    restarts: int = RESTARTS,
) -> Iterator[Service]:
    """Serve a bundle with these settings for as long as the context lasts, and ``others`` by their names.

    The guard listens on ``address``; a port of 0 picks a free one. The logs of server and guard go to
    the file ``log`` if that is given. Warns if this processor can't compute in the precision that was
    asked for, and if whoever reaches the address may send requests. Raises :class:`ServerError` for
    what doesn't start, :class:`InputError` for certificates or tokens that can't be used.
    """
    asked, guard = settings or Settings(), guard or GuardSettings()
    settings = computed_here(bundle, asked)
    warn_if_open(address, guard)
    ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
    # The server's own queues refuse first, since they know for how long; this bounds what a flood costs.
    room = 4 * (1 + len(others)) * (settings.at_once + settings.max_queue)
    with OwnFolder() as own, contextlib.ExitStack() as running:
        front = Guard(
            own.path,
            address,
            ports,
            room=room,
            limits=limits((bundle, *others), settings, guard),
            settings=guard,
            log=log,
            tracing=Tracing.of(settings),
        )
        running.enter_context(front)  # first, since it fails at once if a port is taken
        server = running.enter_context(
            hidden_server(
                bundle,
                settings,
                others=[(each, computed_here(each, asked)) for each in others],
                log=log,
                restarts=restarts,
                died=front.note_death,
            )
        )
        service = Service(server, front, tls=guard.tls)
        alive = aliveness(server, len(bundle.features.wire_columns))
        pages = {"/metrics": service.metrics, ALIVE_PATH: alive}
        running.enter_context(answering(own.path, pages))
        front.send_to([server], new=server)
        running.callback(_cut_off, front)  # an open connection would keep Triton from ending
        yield service


def _cut_off(front: Guard) -> None:
    """Let no request pass any more; what is in flight is answered."""
    with contextlib.suppress(ServerError):
        front.send_to([])


def warn_if_open(address: str, guard: GuardSettings) -> None:
    """Warn if whoever reaches an address of other machines may send requests, or read them."""
    if _is_loopback(address):
        return
    lacks = []
    if not guard.tls:
        lacks.append("what clients send can be read on its way (give a certificate and its key)")
    if guard.open_to_all:
        lacks.append("everybody who reaches it may send requests (give tokens or a client CA)")
    if lacks:
        message = f"the service is open beyond this machine on {address}: {' and '.join(lacks)}"
        warnings.warn(message, stacklevel=4)


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"
