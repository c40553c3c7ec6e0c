"""The requests that a model has accepted, and who works on them next.

Triton's own bound on a queue makes a request sleep for half a second beside an idle instance now and
then, and its refusal can't state when to retry. So requests wait here.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackserve.contract.wanted import LABELS_ONLY, Wanted

if TYPE_CHECKING:
    from trackserve.backend.policy import Policy
    from trackserve.backend.workers import Outcome
    from trackserve.contract.trace import Traced

BATCH_HITS = 20_000
"""Events go to a worker together up to this many hits: beyond, each is work enough alone."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request that was accepted."""

    request_id: str
    tensor: Any
    since: float
    """When it came, by ``time.monotonic`` (s)."""
    hits: int
    wanted: Wanted = LABELS_ONLY
    compact: bool = False
    """Whether the tensor is HITS_COMPACT, and LABELS_COMPACT is to come back."""
    sender: Any = None
    """What sends its answer, None where ``execute`` returns it."""
    traced: Traced | None = None
    """Its place in a trace, None if none is recorded."""


class Queue:
    """Requests in the order in which they came, for ``places`` workers; any thread may call it.

    A worker gets up to ``batch`` small events at a time.
    """

    def __init__(self, policy: Policy, *, places: int, batch: int) -> None:
        self._policy = policy
        self._places = places
        self._batch = batch
        self._waiting: deque[Request] = deque()
        self._arrival = threading.Condition()
        self._accepted = self._unsent = 0
        self._stopping = False

    @property
    def length(self) -> int:
        """How many of the requests accepted no worker has a place for."""
        return max(0, self._accepted - self._places)

    @property
    def accepted(self) -> int:
        """How many requests wait or are worked on."""
        return self._accepted

    def admit(self) -> Outcome | None:
        """Count a request as accepted, or return why it is refused."""
        with self._arrival:
            refusal = self._policy.refusal(self.length, stopping=self._stopping)
            if refusal is None:
                self._accepted += 1
                self._unsent += 1
            return refusal

    def put(self, request: Request) -> None:
        """Append an accepted request."""
        with self._arrival:
            self._waiting.append(request)
            self._arrival.notify()

    def get(self) -> list[Request]:
        """Wait for a request; return it and small ones behind it, but leave other workers their share."""
        with self._arrival:
            while not self._waiting:
                self._arrival.wait()
            share = min(self._batch, -(-len(self._waiting) // self._places))
            batch = [self._waiting.popleft()]
            hits = batch[0].hits
            while len(batch) < share and hits + self._waiting[0].hits <= BATCH_HITS:
                hits += self._waiting[0].hits
                batch.append(self._waiting.popleft())
            return batch

    def finish(self) -> None:
        """Count a request as worked on; its answer may still have to be sent."""
        with self._arrival:
            self._accepted -= 1

    def sent(self) -> None:
        """Count an answer as sent."""
        with self._arrival:
            self._unsent -= 1

    def stop(self, *, stopping: bool) -> bool:
        """Refuse every new request while ``stopping``; return whether all answers have been sent."""
        with self._arrival:
            self._stopping = stopping
            return stopping and not self._unsent
