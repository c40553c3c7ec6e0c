"""The served models: each accepts a request or refuses it at once, and answers it when its turn comes.

``execute`` returns before the requests are answered; threads with a worker each find their tracks and
send them. Only a small event that is alone is answered by ``execute`` itself, for to hand it over takes
a twentieth of its time.
"""

from __future__ import annotations

import asyncio  # noqa: F401  (Triton's stub imports it at the first request: 0.1 s)
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb

from trackserve.backend import inputs
from trackserve.backend.counters import Counters
from trackserve.backend.draining import watch_for_stop
from trackserve.backend.log import RequestLog
from trackserve.backend.parent import end_with_parent
from trackserve.backend.policy import Policy
from trackserve.backend.queue import Queue, Request
from trackserve.backend.spans import Part, Record, Spans
from trackserve.backend.workers import Answer, Ensemble, Monolith, Outcome
from trackserve.bundle import read_bundle
from trackserve.contract import metrics
from trackserve.contract.description import PIPELINE, Description
from trackserve.contract.tensors import WARNING, bundle_folder, model_named, split_name
from trackserve.contract.trace import Traced
from trackserve.contract.wanted import Wanted
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trackserve.backend.workers import Worker

ALONE_HITS = 5_000
"""An event of up to this many hits may be answered by ``execute``: others that come wait that long."""
APART = 0.001
"""Seconds between an answer and the next request after which nobody was waiting to be accepted."""
SWITCH_SECONDS = 0.001
"""After which a thread that computes makes way for one that accepts, refuses or sends."""


class TritonPythonModel:
    """One input in, LABELS and, on request, further outputs out; see the table of tensors."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the limits and start a thread for each worker."""
        end_with_parent()
        config = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in config.items()}
        self._table = model_named(args["model_name"])
        self._description = Description.from_parameters(parameters)
        self._counters = Counters(self._description.bundle)
        self._log = RequestLog(self._table.name, parameters["log_requests"], self._counters)
        collector = parameters["trace"]
        self._spans = Spans(collector, self._counters) if collector else None
        folder = bundle_folder(split_name(self._table.name)[1])
        # The stages of an ensemble check theirs.
        networks = None if parameters["worker"] == PIPELINE else ()
        bundle = read_bundle(Path(args["model_repository"]).parent / folder, networks=networks)
        self._bundle = bundle.with_budget(json.loads(parameters["budget"]))
        workers = self._workers(parameters)
        self._policy = Policy(
            max_queue=int(parameters["max_queue"]),
            queue_timeout=float(parameters["queue_timeout"]),
            places=len(workers),
        )
        self._queue = Queue(self._policy, places=len(workers), batch=int(parameters["batch"]))
        self._last_alone = 0.0
        self._only_worker = workers[0] if len(workers) == 1 else None
        for worker in workers:
            threading.Thread(target=self._work, args=(worker,), daemon=True).start()
        watch_for_stop(self._table.name, self._queue)

    def _workers(self, parameters: Mapping[str, str]) -> Sequence[Worker]:
        """Return what finds tracks: a worker for each event that may be in flight."""
        at_once = int(parameters["at_once"])
        if parameters["worker"] != PIPELINE:
            # One more than can be worked on, so that no instance waits for its next event.
            places = min(at_once, len(os.sched_getaffinity(0))) + 1
            return [Ensemble(parameters["worker"])] * places
        sys.setswitchinterval(SWITCH_SECONDS)
        bundle, (tensor,) = self._bundle, self._table.inputs
        devices = parameters["device"].split(",")
        return [
            Monolith(
                bundle, {**parameters, "device": devices[i % len(devices)]}, tensor, self._counters
            )
            for i in range(at_once)
        ]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return an answer or a refusal for each request, None for one that is answered later."""
        return [self._accept(request) for request in requests]

    def finalize(self) -> None:
        """Report the last counts and spans."""
        if self._spans is not None:
            self._spans.close()
        self._counters.report()

    def _accept(self, request: Any) -> Any:
        """Return the answer of a request or its refusal, None if it waits."""
        name, now = request.request_id() or token_hex(8), time.monotonic()
        parameters = json.loads(request.parameters() or "{}")
        traced = None if self._spans is None else Traced.of_request(parameters)
        try:
            wanted = Wanted.of_request(parameters)
            self._description.check(wanted, self._table)
            wanted = replace(wanted, bundle=None)  # which it is, and events go together
            given = inputs.given(request, self._table, self._description)
        except InputError as error:
            return self._refuse(name, Outcome("unusable", str(error)), now, traced)
        if refusal := self._queue.admit():
            return self._refuse(name, refusal, now, traced)
        alone = self._queue.accepted == 1 and now - self._last_alone > APART
        self._counters.add(metrics.PENDING, 1, self._table.name)
        accepted = Request(
            name, given.tensor, now, given.hits, wanted, given.compact, traced=traced
        )
        if self._only_worker is not None and alone and accepted.hits <= ALONE_HITS:
            ((_, answer),) = self._answers(self._only_worker, [accepted])
            self._sent()
            self._last_alone = time.monotonic()
            return answer
        self._queue.put(replace(accepted, sender=request.get_response_sender()))
        return None

    def _refuse(self, name: str, outcome: Outcome, since: float, traced: Traced | None) -> Any:
        """Count a request that isn't accepted and return its answer."""
        self._log.record(name, outcome)
        if traced is not None:
            self._trace(name, traced, outcome, since=since, ended=time.monotonic())
        return _error(outcome)

    def _work(self, worker: Worker) -> None:
        """Answer requests for as long as the process lives."""
        while True:
            try:
                for request, answer in self._answers(worker, self._queue.get()):
                    self._send(request, answer)
            except Exception:  # the next ones are answered
                pb.Logger.log_error(f"{self._table.name}: {traceback.format_exc()}")

    def _send(self, request: Request, answer: Any) -> None:
        """Send an answer; one that can't be sent keeps neither its place nor others from theirs."""
        try:
            request.sender.send(answer, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:
            pb.Logger.log_error(f"request {request.request_id}: {traceback.format_exc()}")
        finally:
            self._sent()

    def _sent(self) -> None:
        self._queue.sent()
        self._counters.add(metrics.PENDING, -1, self._table.name)

    def _answers(self, worker: Worker, batch: list[Request]) -> Iterator[tuple[Request, Any]]:
        """Yield each request with its answer, to be sent."""
        began = time.monotonic()
        in_time: list[Request] = []
        for request in batch:
            if late := self._policy.lateness(request, began, self._queue.length):
                yield request, self._end(request, Answer(late), began)
            else:
                in_time.append(request)
        if not in_time:
            return
        answers = worker.find(in_time)
        if any(answer.outputs is not None for answer in answers):
            self._policy.observe((time.monotonic() - began) / len(answers))
        for request, answer in zip(in_time, answers, strict=True):
            yield request, self._end(request, answer, began)

    def _end(self, request: Request, answer: Answer, began: float) -> Any:
        """Count a request and return its answer: whoever has it finds its line in the log."""
        ended, (outcome, outputs, _) = time.monotonic(), answer
        self._queue.finish()
        if outcome.kind == "answered":
            self._counters.add(metrics.QUEUE_SECONDS, began - request.since, self._table.name)
            self._counters.add(metrics.HITS, request.hits)
            self._counters.add_latency(self._table.name, request.hits, ended - request.since)
            doubt = self._doubt(request)
            self._counters.add(metrics.WARNINGS, int(bool(doubt)), self._table.name)
            if doubt:
                outcome = replace(outcome, reason=doubt)
        self._log.record(
            request.request_id,
            outcome,
            hits=request.hits,
            waited=round(began - request.since, 6),
            worked=round(ended - began, 6),
        )
        if request.traced is not None:
            stages = answer.work.parts() if answer.work else ()
            parts = [Part("queue", request.since, began), *stages]
            name, since = request.request_id, request.since
            self._trace(name, request.traced, outcome, since=since, ended=ended, parts=parts)
        if outputs is None:
            return _error(outcome)
        if request.compact:
            outputs = inputs.in_compact_form(outputs)
        if outcome.reason:
            text = np.array([outcome.reason.encode()], np.object_)
            outputs = [*outputs, pb.Tensor(WARNING.name, text)]
        return pb.InferenceResponse(outputs)

    def _trace(
        self,
        name: str,
        traced: Traced,
        outcome: Outcome,
        *,
        since: float,
        ended: float,
        parts: Sequence[Part] = (),
    ) -> None:
        """Record the span of a request and those of its parts."""
        assert self._spans is not None
        about = {
            "trackserve.request_id": name,
            "trackserve.bundle": self._description.bundle,
            "trackserve.outcome": outcome.kind,
        }
        error = "" if outcome.kind == "answered" else outcome.reason  # else it is a warning
        record = Record(self._table.name, traced, since, ended, about, parts, error)
        self._spans.record(record)

    def _doubt(self, request: Request) -> str | None:
        """Return why features that were answered are hardly the bundle's, None if they may be.

        Triton 2.51's python backend can't add a parameter to a response, so this is an output.
        """
        if self._table.warning is None:
            return None
        return self._bundle.doubt(inputs.hits_of(request))


def _error(outcome: Outcome) -> Any:
    return pb.InferenceResponse(error=pb.TritonError(outcome.reason, outcome.code))
