"""The served models: each takes a request or refuses it at once, and hands it on when its turn comes.

Triton's own bound on a queue makes a request sleep for half a second beside an idle instance now and
then, and a refusal of its own can't say when to come back. So requests wait here. ``execute`` returns
before they are answered; a few threads hand them on to the pipeline and send what it says.
"""

from __future__ import annotations

import asyncio  # noqa: F401  (Triton's stub imports it at the first request: 0.1 s)
import json
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb

from trackserve.triton import metrics
from trackserve.triton.models.counters import Counters
from trackserve.triton.settings import FRONTS, STOP
from trackserve.triton.tensors import COUNTS, MODELS, UNUSABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_GUESS = 1.0
"""Seconds that an event is taken to need before one has been answered."""
WEIGHT = 0.1
"""Of the latest event in the mean."""
BATCH_HITS = 20_000
"""Events go to an instance together up to so many hits: beyond, each is work enough alone."""
LONG_WAIT = 0.1
"""Seconds after which it is worth asking whether the client is still there."""
WATCH_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request that was taken."""

    request_id: str
    tensor: Any
    sender: Any
    since: float
    hits: int


@dataclass(frozen=True)
class Outcome:
    """What became of a request: one of the metrics' outcomes, and why if it has no tracks."""

    kind: str
    reason: str = ""

    @property
    def code(self) -> int:
        """Triton's code for the error."""
        codes = {"unusable": pb.TritonError.INVALID_ARG, "failed": pb.TritonError.INTERNAL}
        code: int = codes.get(self.kind, pb.TritonError.UNAVAILABLE)
        return code


class TritonPythonModel:
    """One input in, LABELS out; see the table of tensors."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the limits and start the threads that hand requests on."""
        given = json.loads(args["model_config"])["parameters"]
        limits = {name: value["string_value"] for name, value in given.items()}
        self._table = MODELS[args["model_name"]]
        self._worker = MODELS[limits["worker"]]
        self._max_queue = int(limits["max_queue"])
        self._queue_timeout = float(limits["queue_timeout"])
        self._logged = limits["log_requests"]
        # One more than can be worked on, so that no instance waits for its next event.
        self._under_way = min(int(limits["at_once"]), len(os.sched_getaffinity(0))) + 1
        self._batch = int(limits["batch"])
        self._waiting: deque[Waiting] = deque()
        self._lock = threading.Lock()
        self._somebody_waits = threading.Condition(self._lock)
        self._taken = self._unsent = 0
        self._seconds = FIRST_GUESS
        self._stopping = False
        self._counters = Counters()
        for _ in range(self._under_way):
            threading.Thread(target=self._answer_always, daemon=True).start()
        if folder := os.environ.get(FRONTS):
            serving = Path(folder, self._table.name)
            serving.touch()
            threading.Thread(target=self._watch, args=(serving,), daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Refuse each request or take it, to be answered later."""
        return [self._take(request) for request in requests]

    def finalize(self) -> None:
        """Tell the last counts."""
        self._counters.tell()

    def _take(self, request: Any) -> Any:
        """Return the refusal of a request, None if it was taken."""
        name = request.request_id() or token_hex(8)
        with self._lock:
            refusal = self._refusal()
            self._taken += refusal is None
            self._unsent += refusal is None
        if refusal is not None:
            self._record(name, refusal)
            return _error(refusal)
        self._counters.add(metrics.PENDING, 1, self._table.name)
        tensor = pb.get_input_tensor_by_name(request, self._table.inputs[0].name)
        taken = Waiting(
            name, tensor, request.get_response_sender(), time.monotonic(), tensor.shape()[0]
        )
        with self._lock:
            self._waiting.append(taken)
            self._somebody_waits.notify()
        return None

    def _refusal(self) -> Outcome | None:
        """Return why no request is taken now; the lock is held."""
        if self._stopping:
            return Outcome(
                "stopping", "the server is stopping; ask another one, or when it is back"
            )
        waiting = self._taken - self._under_way
        if waiting >= self._max_queue:
            reason = f"the queue is full: {waiting} requests wait; {self._hint(waiting)}"
            return Outcome("full", reason)
        return None

    def _hint(self, waiting: int) -> str:
        """Return when to come back: when those that wait now will have been worked on."""
        return f"retry after {max(0.01, waiting * self._seconds / self._under_way):.3g} s"

    def _answer_always(self) -> None:
        while True:
            self._answer(self._next())

    def _next(self) -> list[Waiting]:
        """Wait for a request, and take small ones behind it, but leave others their share."""
        with self._lock:
            while not self._waiting:
                self._somebody_waits.wait()
            share = min(self._batch, -(-len(self._waiting) // self._under_way))
            together = [self._waiting.popleft()]
            hits = together[0].hits
            while len(together) < share and hits + self._waiting[0].hits <= BATCH_HITS:
                hits += self._waiting[0].hits
                together.append(self._waiting.popleft())
            return together

    def _answer(self, together: list[Waiting]) -> None:
        began = time.monotonic()
        worth: list[Waiting] = []
        for waiting in together:
            if late := self._late(waiting, began):
                self._end(waiting, late, None, began)
            else:
                worth.append(waiting)
        answers = self._ask(worth)
        if any(response is not None for _, response in answers):
            each = (time.monotonic() - began) / len(answers)
            with self._lock:
                self._seconds += WEIGHT * (each - self._seconds)
        for waiting, (outcome, response) in zip(worth, answers, strict=True):
            self._end(waiting, outcome, response, began)

    def _end(self, waiting: Waiting, outcome: Outcome, response: Any, began: float) -> None:
        """Count a request and send what became of it."""
        ended = time.monotonic()
        with self._lock:
            self._taken -= 1
        self._counters.add(metrics.QUEUE_SECONDS, began - waiting.since, self._table.name)
        if outcome.kind == "answered":
            self._counters.add(metrics.HITS, waiting.hits)
        self._record(
            waiting.request_id,
            outcome,
            hits=waiting.hits,
            waited=round(began - waiting.since, 6),
            worked=round(ended - began, 6),
        )
        # Last, so that a client that has its answer finds the line of its request in the log.
        sent = _error(outcome) if response is None else response
        waiting.sender.send(sent, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        with self._lock:
            self._unsent -= 1
        self._counters.add(metrics.PENDING, -1, self._table.name)

    def _late(self, waiting: Waiting, now: float) -> Outcome | None:
        """Return why a request isn't worth working on any more, None if it is."""
        waited = now - waiting.since
        if waited > self._queue_timeout:
            with self._lock:
                hint = self._hint(max(0, self._taken - self._under_way))
            reason = (
                f"waited {waited:.3g} s, this server's limit is {self._queue_timeout:g} s; {hint}"
            )
            return Outcome("timeout", reason)
        if waited > LONG_WAIT and waiting.sender.is_cancelled():
            return Outcome("cancelled", "the client has gone")
        return None

    def _ask(self, together: list[Waiting]) -> list[tuple[Outcome, Any]]:
        """Hand requests on; return what became of each, and the response if there is one.

        What can't be answered together is asked for alone: nobody fails for another's hits.
        """
        if len(together) > 1:
            rows = np.concatenate([waiting.tensor.as_numpy() for waiting in together])
            counts = np.array([waiting.hits for waiting in together])
            tensors = [pb.Tensor(self._table.inputs[0].name, rows), pb.Tensor(COUNTS.name, counts)]
            outcome, labels = self._hand_on(tensors, ",".join(w.request_id for w in together))
            if labels is not None:
                parts = np.split(labels.as_numpy(), np.cumsum(counts)[:-1])
                name = labels.name()
                return [(outcome, pb.InferenceResponse([pb.Tensor(name, p)])) for p in parts]
        answers = (self._hand_on([waiting.tensor], waiting.request_id) for waiting in together)
        return [
            (outcome, None if labels is None else pb.InferenceResponse([labels]))
            for outcome, labels in answers
        ]

    def _hand_on(self, tensors: list[Any], request_id: str) -> tuple[Outcome, Any]:
        """Ask the worker; return what became of that, and its output if there is one."""
        (output,) = self._worker.outputs
        try:
            response = pb.InferenceRequest(
                model_name=self._worker.name,
                requested_output_names=[output.name],
                inputs=tensors,
                request_id=request_id,
            ).exec()
            if not response.has_error():
                (labels,) = response.output_tensors()
                return Outcome("answered"), labels
            reason = response.error().message()
        except Exception as error:  # an instance serves on
            reason = f"the server failed: {type(error).__name__}: {error}"
        # An error's code is lost on the way, so its text says what it is.
        _, unusable, why = reason.partition(UNUSABLE)
        return (Outcome("unusable", why) if unusable else Outcome("failed", reason)), None

    def _record(self, request_id: str, outcome: Outcome, **numbers: float) -> None:
        """Count a request, and give it a line of JSON in the log if that is wanted."""
        self._counters.add(metrics.REQUESTS, 1, self._table.name, outcome.kind)
        failure = outcome.kind in {"unusable", "failed"}
        if self._logged == "none" or (self._logged == "failures" and not failure):
            return
        line = {
            "time": datetime.now(UTC).isoformat(),
            "event": "request",
            "request_id": request_id,
            "model": self._table.name,
            "outcome": outcome.kind,
            **({"reason": outcome.reason} if outcome.reason else {}),
            **numbers,
        }
        sys.stderr.write(f"{json.dumps(line)}\n")
        sys.stderr.flush()

    def _watch(self, serving: Path) -> None:
        """Take nothing more once the server is to stop; leave word when nothing is under way."""
        stop = serving.with_name(STOP)
        while self._unsent or not self._stopping:
            time.sleep(WATCH_SECONDS)
            with self._lock:
                self._stopping = stop.exists()
        serving.unlink(missing_ok=True)


def _error(outcome: Outcome) -> Any:
    return pb.InferenceResponse(error=pb.TritonError(outcome.reason, outcome.code))
