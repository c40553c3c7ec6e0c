"""Which requests a model refuses, and when it gives up on one that waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from trackserve.backend.workers import Outcome

if TYPE_CHECKING:
    from trackserve.backend.queue import Request

FIRST_GUESS = 1.0
"""Seconds that an event is assumed to need before one has been answered."""
WEIGHT = 0.1
"""Weight of the latest event in the moving average."""
LONG_WAIT = 0.1
"""Seconds in the queue after which it is worth checking whether the client is still there."""


class Policy:
    """The limits of a queue in requests and in seconds, for ``places`` workers."""

    def __init__(self, *, max_queue: int, queue_timeout: float, places: int) -> None:
        self._max_queue = max_queue
        self._queue_timeout = queue_timeout
        self._places = places
        self._seconds = FIRST_GUESS
        self._lock = threading.Lock()

    def refusal(self, length: int, *, stopping: bool) -> Outcome | None:
        """Return why a new request is refused while ``length`` others wait, None if it isn't."""
        if stopping:
            return Outcome(
                "stopping", "the server is stopping; ask another one, or when it is back"
            )
        if length >= self._max_queue:
            reason = f"the queue is full: {length} requests wait; {self._hint(length)}"
            return Outcome("full", reason)
        return None

    def lateness(self, request: Request, now: float, length: int) -> Outcome | None:
        """Return why a request isn't worth working on any more, None if it is."""
        waited = now - request.since
        if waited > self._queue_timeout:
            limit = f"this server's limit is {self._queue_timeout:g} s"
            return Outcome("timeout", f"waited {waited:.3g} s, {limit}; {self._hint(length)}")
        if waited > LONG_WAIT and request.sender and request.sender.is_cancelled():
            return Outcome("cancelled", "the client has gone")
        return None

    def observe(self, seconds: float) -> None:
        """Take the time that an event needed into the moving average behind the hints."""
        with self._lock:
            self._seconds += WEIGHT * (seconds - self._seconds)

    def _hint(self, length: int) -> str:
        """Return when to retry: when those that wait now will have been worked on."""
        return f"retry after {max(0.01, length * self._seconds / self._places):.3g} s"
