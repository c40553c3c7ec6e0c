"""The served models: each takes a request or refuses it at once, and finds its tracks when its turn comes.

Triton's own bound on a queue makes a request sleep for half a second beside an idle instance now and
then, and a refusal of its own can't say when to come back. So requests wait here. ``execute`` returns
before they are answered; threads with a worker each find their tracks and send them. Only a small event
that is alone is answered by ``execute`` itself, for to hand it over takes a twentieth of its time.
"""

from __future__ import annotations

import asyncio  # noqa: F401  (Triton's stub imports it at the first request: 0.1 s)
import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb

from trackserve.backend.counters import Counters
from trackserve.backend.workers import Ensemble, Monolith, Outcome
from trackserve.bundle import read_bundle
from trackserve.contract import metrics
from trackserve.contract.description import PIPELINE
from trackserve.contract.draining import FRONTS, STOP
from trackserve.contract.tensors import BUNDLE_FOLDER, MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trackserve.backend.workers import Worker

FIRST_GUESS = 1.0
"""Seconds that an event is taken to need before one has been answered."""
WEIGHT = 0.1
"""Of the latest event in the mean."""
BATCH_HITS = 20_000
"""Events are worked on together up to so many hits: beyond, each is work enough alone."""
ALONE_HITS = 5_000
"""An event of up to so many hits may be answered by ``execute``: what comes meanwhile waits that long."""
APART = 0.001
"""Seconds between an answer and the next request after which nobody was waiting to be taken."""
SWITCH_SECONDS = 0.001
"""After which a thread that computes makes way for one that takes, refuses or sends."""
LONG_WAIT = 0.1
"""Seconds after which it is worth asking whether the client is still there."""
WATCH_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request that was taken."""

    request_id: str
    tensor: Any
    since: float
    hits: int
    sender: Any = None


class TritonPythonModel:
    """One input in, LABELS out; see the table of tensors."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the limits and start a thread for each worker."""
        given = json.loads(args["model_config"])["parameters"]
        says = {name: value["string_value"] for name, value in given.items()}
        self._table = MODELS[args["model_name"]]
        self._max_queue = int(says["max_queue"])
        self._queue_timeout = float(says["queue_timeout"])
        self._logged = says["log_requests"]
        self._batch = int(says["batch"])
        self._waiting: deque[Waiting] = deque()
        self._lock = threading.Lock()
        self._somebody_waits = threading.Condition(self._lock)
        self._taken = self._unsent = 0
        self._seconds = FIRST_GUESS
        self._stopping = False
        self._last_alone = 0.0
        self._counters = Counters()
        workers = self._workers(says, Path(args["model_repository"]).parent)
        self._under_way = len(workers)
        self._only_worker = workers[0] if len(workers) == 1 else None
        for worker in workers:
            threading.Thread(target=self._answer_always, args=(worker,), daemon=True).start()
        if folder := os.environ.get(FRONTS):
            serving = Path(folder, self._table.name)
            serving.touch()
            threading.Thread(target=self._watch, args=(serving,), daemon=True).start()

    def _workers(self, says: Mapping[str, str], repository: Path) -> Sequence[Worker]:
        """Return what finds tracks, as many as there may be events under way."""
        at_once = int(says["at_once"])
        if says["worker"] != PIPELINE:
            # One more than can be worked on, so that no instance waits for its next event.
            return [Ensemble(says["worker"])] * (min(at_once, len(os.sched_getaffinity(0))) + 1)
        sys.setswitchinterval(SWITCH_SECONDS)
        bundle, (given,) = read_bundle(repository / BUNDLE_FOLDER), self._table.inputs
        return [Monolith(bundle, says, given, self._counters) for _ in range(at_once)]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer or refuse each request, or take it, to be answered later."""
        return [self._take(request) for request in requests]

    def finalize(self) -> None:
        """Tell the last counts."""
        self._counters.tell()

    def _take(self, request: Any) -> Any:
        """Return the answer of a request or its refusal, None if it was taken."""
        name, now = request.request_id() or token_hex(8), time.monotonic()
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self._taken += 1
                self._unsent += 1
            alone = self._taken == 1 and now - self._last_alone > APART
        if refusal is not None:
            self._record(name, refusal)
            return _error(refusal)
        self._counters.add(metrics.PENDING, 1, self._table.name)
        tensor = pb.get_input_tensor_by_name(request, self._table.inputs[0].name)
        taken = Waiting(name, tensor, now, tensor.shape()[0])
        if self._only_worker is not None and alone and taken.hits <= ALONE_HITS:
            ((_, answer),) = self._answers(self._only_worker, [taken])
            self._sent()
            self._last_alone = time.monotonic()
            return answer
        taken = replace(taken, sender=request.get_response_sender())
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

    def _answer_always(self, worker: Worker) -> None:
        while True:
            try:
                for waiting, answer in self._answers(worker, self._next()):
                    self._send(waiting, answer)
            except Exception:  # the next ones are answered
                pb.Logger.log_error(f"{self._table.name}: {traceback.format_exc()}")

    def _send(self, waiting: Waiting, answer: Any) -> None:
        """Send an answer; one that can't be sent keeps neither its place nor others from theirs."""
        try:
            waiting.sender.send(answer, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:
            pb.Logger.log_error(f"request {waiting.request_id}: {traceback.format_exc()}")
        finally:
            self._sent()

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

    def _answers(self, worker: Worker, together: list[Waiting]) -> Iterator[tuple[Waiting, Any]]:
        """Yield each request with its answer, to be sent."""
        began = time.monotonic()
        worth: list[Waiting] = []
        for waiting in together:
            if late := self._late(waiting, began):
                yield waiting, self._end(waiting, late, None, began)
            else:
                worth.append(waiting)
        if not worth:
            return
        found = worker.find([w.tensor for w in worth], [w.request_id for w in worth])
        if any(labels is not None for _, labels in found):
            each = (time.monotonic() - began) / len(found)
            with self._lock:
                self._seconds += WEIGHT * (each - self._seconds)
        for waiting, (outcome, labels) in zip(worth, found, strict=True):
            yield waiting, self._end(waiting, outcome, labels, began)

    def _end(self, waiting: Waiting, outcome: Outcome, labels: Any, began: float) -> Any:
        """Count a request and return its answer: whoever has it finds its line in the log."""
        ended = time.monotonic()
        with self._lock:
            self._taken -= 1
        if outcome.kind == "answered":
            self._counters.add(metrics.QUEUE_SECONDS, began - waiting.since, self._table.name)
            self._counters.add(metrics.HITS, waiting.hits)
        self._record(
            waiting.request_id,
            outcome,
            hits=waiting.hits,
            waited=round(began - waiting.since, 6),
            worked=round(ended - began, 6),
        )
        return _error(outcome) if labels is None else pb.InferenceResponse([labels])

    def _sent(self) -> None:
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
        if waited > LONG_WAIT and waiting.sender and waiting.sender.is_cancelled():
            return Outcome("cancelled", "the client has gone")
        return None

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
        with contextlib.suppress(OSError):  # a full disk costs the line, not the answer
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
