"""One process of a load: it sends events as its task demands and keeps a record of each request."""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import RefusedError, TrackserveError, UnreachableError
from trackserve.load.wire import Wire, label_bytes, open_wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trackserve.contract.tensors import Model
    from trackserve.event import Float32, Int64

RECORD = np.dtype(
    [(name, "f8") for name in ("arrival", "sent", "received", "done")]
    + [("event", "i4"), ("outcome", "i1")]
)
"""A request: when it was due, was sent, its answer arrived and was read (s), which event, and its status."""
SLOTS, SLOTS_BYTES = 1024, 2**28
"""Requests that one process of an open loop may have in flight through shared memory, and its most memory."""
CHUNK = 4096
KEEP_MEMORY = ((-3, 2**25), (-1, 2**30))
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc: no fresh pages for each request that is sent."""
PAUSE = 0.01
"""How long a closed loop waits (s) after a request without an answer, so that it does not flood the server."""


class RequestStatus(IntEnum):
    """How a request ended: each has exactly one status."""

    ANSWERED = 0
    """with labels, the expected ones where these are known"""
    WRONG = 1
    """with labels that are not the expected ones"""
    REFUSED = 2
    """the server refused, with a reason"""
    FAILED = 3
    """a fault of the server, or an unusable event"""
    LOST = 4
    """no answer within the timeout, or the connection broke"""


ANSWERS = {RequestStatus.ANSWERED, RequestStatus.WRONG}


@dataclass(frozen=True, eq=False)
class Task:
    """What one process sends; see :class:`trackserve.load.load.Load`."""

    url: str
    tables: list[Float32]
    probabilities: NDArray[np.float64]
    expected: list[Int64] | None
    also: list[Int64] | None
    concurrency: int
    rate: float
    seconds: float
    timeout: float
    shared_memory: bool
    model: Model
    seed: tuple[int, int]


def run_task(task: Task, ready: Any, begin: Any, sent: Any, answers: Any) -> None:
    """Connect, wait until all processes have, send, and give the records to ``answers``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started the load ends it
    for parameter, size in KEEP_MEMORY:
        ctypes.CDLL(None).mallopt(parameter, size)
    # select() waits to the microsecond, epoll() to the millisecond: small events take few of them.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        answers.put(loop.run_until_complete(_run(task, ready, begin, sent)))
    except TrackserveError as error:
        answers.put(error)
    finally:
        loop.close()


async def _run(task: Task, ready: Any, begin: Any, sent: Any) -> NDArray[Any]:
    slots = (task.concurrency or _slots(task)) if task.shared_memory else 0
    async with open_wire(
        task.url, task.tables, timeout=task.timeout, slots=slots, model=task.model
    ) as wire:
        await asyncio.to_thread(ready.wait)  # all have connected
        await asyncio.to_thread(ready.wait)  # and know when to begin
        sender = _Sender(wire, task, sent, begin.value)
        await (sender.closed_loop() if task.concurrency else sender.open_loop())
    return np.array(sender.records, RECORD)


def _slots(task: Task) -> int:
    return max(1, min(SLOTS, SLOTS_BYTES // label_bytes(task.tables)))


class _Sender:
    def __init__(self, wire: Wire, task: Task, sent: Any, begin: float) -> None:
        self.wire, self.task, self.sent = wire, task, sent
        self.begin, self.end = begin, begin + task.seconds
        self.records: list[tuple[float, float, float, float, int, int]] = []
        self._random = np.random.default_rng(task.seed)

    async def closed_loop(self) -> None:
        """Keep as many requests in flight as its task demands, each by a thread that waits for its answer.

        An event loop would take up to half a millisecond on the way of each.
        """
        loop, many = asyncio.get_running_loop(), self.task.concurrency
        with ThreadPoolExecutor(many) as threads:
            each = (loop.run_in_executor(threads, self._in_turn, slot) for slot in range(many))
            await asyncio.gather(*each)

    def _in_turn(self, slot: int) -> None:
        """Send one event after the other; ``slot`` is of this thread alone."""
        events = self._draw(slot)
        with self.wire.blocking() as send:
            time.sleep(max(0.0, self.begin - time.monotonic()))
            while (now := time.monotonic()) < self.end:
                event = next(events)
                answer, received = b"", now
                try:
                    answer = send(event, slot)
                    received = time.monotonic()
                    outcome = self._judge(self.wire.read(answer, event, slot), event)
                except TrackserveError as error:
                    outcome = _outcome(error)
                    received = max(received, time.monotonic())
                self._note(now, now, received, event, outcome)
                if outcome not in ANSWERS:
                    time.sleep(PAUSE)

    async def open_loop(self) -> None:
        """Send at random moments, whatever becomes of what was sent before."""
        arrival, in_flight, events = self.begin, set(), self._draw(0)
        while (arrival := arrival + self._random.exponential(1 / self.task.rate)) < self.end:
            if (left := arrival - time.monotonic()) > 0:
                await asyncio.sleep(left)
            asked = asyncio.create_task(self._ask(next(events), arrival))
            in_flight.add(asked)
            asked.add_done_callback(in_flight.discard)
            if left <= 0:
                await asyncio.sleep(0)  # late: let answers be read all the same
        await asyncio.gather(*in_flight)

    async def _ask(self, event: int, arrival: float) -> None:
        slot = await self.wire.slot()
        sent = received = time.monotonic()
        try:
            answer = await self.wire.send(event, slot)
            received = time.monotonic()
            outcome = self._judge(self.wire.read(answer, event, slot), event)
        except TrackserveError as error:
            outcome = _outcome(error)
            received = max(received, time.monotonic())
        finally:
            self.wire.give_back(slot)
        self._note(arrival, sent, received, event, outcome)

    def _note(
        self, arrival: float, sent: float, received: float, event: int, outcome: RequestStatus
    ) -> None:
        self.records.append((arrival, sent, received, time.monotonic(), event, outcome))
        with self.sent.get_lock():
            self.sent.value += 1

    def _judge(self, labels: Int64, event: int) -> RequestStatus:
        known = [each for each in (self.task.expected, self.task.also) if each is not None]
        right = not known or any(np.array_equal(labels, each[event]) for each in known)
        return RequestStatus.ANSWERED if right else RequestStatus.WRONG

    def _draw(self, stream: int) -> Iterator[int]:
        """Yield the events to send, at random by their weights."""
        random = np.random.default_rng((*self.task.seed, stream))
        while True:
            yield from random.choice(
                len(self.task.tables), CHUNK, p=self.task.probabilities
            ).tolist()


def _outcome(error: TrackserveError) -> RequestStatus:
    if isinstance(error, RefusedError):
        return RequestStatus.REFUSED
    return RequestStatus.LOST if isinstance(error, UnreachableError) else RequestStatus.FAILED
