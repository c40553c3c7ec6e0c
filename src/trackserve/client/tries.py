"""When to ask which server again: bounded tries, a deadline, waits that grow and vary. No network here.

A server that failed rests: it isn't asked while another one is awake. Where all of them rest, a client
waits for the first to have rested, or takes its fallback.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field

from trackserve.errors import (
    InputError,
    NobodyListensError,
    NotTrustedError,
    RefusedError,
    ServerError,
    UnreachableError,
)

FIRST_REST, LONGEST_REST = 0.1, 5.0
"""A failed server's rest (s); it doubles with each further failure, up to the longest."""
FIRST_CONTACT = 2.0
"""How long (s) to try servers at none of whose addresses anything has ever listened."""
WORTH_ANOTHER_TRY = (RefusedError, UnreachableError)
"""What may go well the next time or elsewhere; asking twice does no harm, a server keeps nothing."""


@dataclass(frozen=True)
class Patience:
    """How long and how often to try an event.

    ``timeout`` (s) holds for an event with all its tries, ``try_timeout`` (s) for one of them, so
    that a server that hangs leaves time for another one; ``tries`` is the most for each server.
    Unless one is to ``wait``, addresses where nothing has ever listened are given up within seconds.
    """

    timeout: float
    tries: int
    try_timeout: float | None = None
    wait: bool = False

    def __post_init__(self) -> None:
        for name in ("timeout", "tries", "try_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                message = f"{name} is {value}; expected more than 0"
                raise InputError(message)

    @property
    def longest_try(self) -> float:
        """The longest time (s) that one try may take."""
        return min(self.timeout, self.try_timeout or math.inf)


@dataclass
class _Server:
    in_flight: int = 0
    failures: int = 0
    rests_until: float = -math.inf
    seen: bool = False


@dataclass
class Servers:
    """Which of ``count`` servers to ask: the one with the fewest requests in flight that is awake.

    Among equals it is the first in an order drawn at the start, so that the clients of a farm spread
    and each one stays with the connection it has.
    """

    count: int
    _all: list[_Server] = field(init=False)
    _order: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._all = [_Server() for _ in range(self.count)]
        self._order = random.sample(range(self.count), self.count)

    def choose(self) -> int:
        """Return the server to ask now; if all rest, the one that is first to have rested."""
        now = time.monotonic()

        def rank(number: int) -> tuple[float, int]:
            server = self._all[number]
            return max(0.0, server.rests_until - now), server.in_flight

        return min(self._order, key=rank)

    @property
    def never_seen(self) -> bool:
        """Whether nothing has ever listened at any of the addresses."""
        return not any(server.seen for server in self._all)

    def rest(self) -> float:
        """Return how long (s) all servers will rest, 0 if one is awake."""
        return max(0.0, min(s.rests_until for s in self._all) - time.monotonic())

    def asked(self, number: int) -> None:
        """Note that a request is in flight."""
        self._all[number].in_flight += 1

    def answered(self, number: int) -> None:
        """Note that a request came back, and so the server is well."""
        server = self._all[number]
        server.in_flight -= 1
        server.failures, server.rests_until, server.seen = 0, -math.inf, True

    def failed(self, number: int, error: ServerError) -> None:
        """Note that a request failed; the server rests, as long as it asked for if it did."""
        server, now = self._all[number], time.monotonic()
        server.in_flight -= 1
        server.seen |= not isinstance(error, NobodyListensError)
        if server.rests_until > now:  # this one was in flight when another one failed
            return
        server.failures = min(server.failures + 1, 30)
        rest = min(FIRST_REST * 2 ** (server.failures - 1), LONGEST_REST)
        rest *= random.uniform(0.5, 1.0)
        if isinstance(error, RefusedError) and error.retry_after is not None:
            asked = error.retry_after * random.uniform(1.0, 1.25)
            rest = max(rest, min(asked, LONGEST_REST))
        server.rests_until = now + rest

    def dropped(self, number: int) -> None:
        """Note that a request ended in a way that means nothing about the server."""
        self._all[number].in_flight -= 1


class Tries:
    """The tries of one event: ask :meth:`timeout` before each, :meth:`wait` after one that failed."""

    def __init__(self, patience: Patience, servers: Servers) -> None:
        self.count = 0
        self._patience, self._servers = patience, servers
        self._began = time.monotonic()
        self._not_trusted: ServerError | None = None

    def timeout(self) -> float:
        """Return how long (s) the next try may take."""
        self.count += 1
        return max(1e-3, min(self._patience.longest_try, self._left()))

    def wait(self, error: ServerError, *, fallback: bool) -> float:
        """Return how long (s) to wait before the next try; raises the error if that was the last.

        With a ``fallback`` nobody waits.
        """
        wait = self._servers.rest()
        if isinstance(error, NotTrustedError):
            self._not_trusted = error
        elif isinstance(error, NobodyListensError):  # at another address of the same name
            error = self._not_trusted or error
        nobody = self._servers.never_seen and not self._patience.wait
        if nobody and time.monotonic() + wait > self._began + FIRST_CONTACT:
            raise error
        over = self.count >= self._patience.tries * self._servers.count
        if over or wait >= self._left() or (fallback and wait > 0):
            if self.count == 1:
                raise error
            tried = f"gave up after {self.count} tries in {time.monotonic() - self._began:.1f} s"
            raised = type(error)(f"{error}; {tried}")
            if isinstance(error, RefusedError) and isinstance(raised, RefusedError):
                raised.retry_after = error.retry_after
            raise raised
        return wait

    def _left(self) -> float:
        return self._began + self._patience.timeout - time.monotonic()
