"""What finds the tracks of the requests that a served model has taken: a worker for each at a time."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import triton_python_backend_utils as pb

from trackserve.backend.entry import WARM_UP_HITS
from trackserve.backend.inputs import hits_of, tensor_of
from trackserve.backend.spans import Work
from trackserve.contract import metrics
from trackserve.contract.tensors import (
    EXATRKX,
    FEATURES,
    LABELS,
    PARAMETERS,
    TRACK_FINDING,
    UNUSABLE,
    model_named,
)
from trackserve.contract.trace import TRACEPARENT
from trackserve.engines.registry import open_pipeline
from trackserve.errors import OVER_BUDGET, InputError
from trackserve.pipeline.features import feature_matrix
from trackserve.pipeline.timings import StageClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.backend.counters import Counters
    from trackserve.backend.queue import Request
    from trackserve.bundle import Bundle
    from trackserve.contract.tensors import Tensor
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.base import TimedTracks
    from trackserve.event import Float32, Tracks
    from trackserve.pipeline.timings import Timings


@dataclass(frozen=True)
class Outcome:
    """How a request ended: one of the metrics' outcomes, and why if it has no tracks."""

    kind: str
    reason: str = ""

    @property
    def code(self) -> int:
        """Triton's code for the error."""
        bad, fault = pb.TritonError.INVALID_ARG, pb.TritonError.INTERNAL
        codes = {"unusable": bad, "over_budget": bad, "failed": fault}
        code: int = codes.get(self.kind, pb.TritonError.UNAVAILABLE)
        return code

    @classmethod
    def unusable(cls, reason: str) -> Outcome:
        """Return what becomes of an event that can't be used as it is."""
        return cls("over_budget" if reason.startswith(OVER_BUDGET) else "unusable", reason)


class Answer(NamedTuple):
    """What became of a request, its outputs as Triton's tensors (None if it has no tracks), and its stages' times.

    Of events that were worked on together each one's stages are those of all.
    """

    outcome: Outcome
    outputs: list[Any] | None = None
    work: Work | None = None


class Worker(Protocol):
    """Finds the tracks of some requests' events at a time."""

    def find(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answer for each of the requests."""


class Monolith:
    """The whole pipeline in this process, from hits or scaled features to labels."""

    def __init__(
        self, bundle: Bundle, parameters: Mapping[str, str], given: Tensor, counters: Counters
    ) -> None:
        self._columns = None if given is FEATURES else bundle.features
        self._served = (EXATRKX if given is FEATURES else TRACK_FINDING).name
        self._max_hits = int(parameters["max_hits"])
        self._counters = counters
        precision = parameters["precision"]
        self._pipeline = open_pipeline(
            bundle,
            engine=parameters["engine"],
            device=parameters["device"],
            threads=int(parameters["threads"]),
            precision=None if precision == "bundle" else precision,
        )
        # Run once: what can't fails at the start, and a first event is fast.
        hits = min(WARM_UP_HITS, self._max_hits)
        made_up = np.random.default_rng(0).random((hits, len(bundle.features.columns)), np.float32)
        self._pipeline.run_events([made_up])
        self._note_memory()

    def find(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answer for each of the requests; those that want the same are worked on together."""
        answers: dict[Request, Answer] = {}
        for wanted in dict.fromkeys(request.wanted for request in requests):
            alike = [request for request in requests if request.wanted == wanted]
            answers |= zip(alike, self._find(alike, wanted), strict=True)
        return [answers[request] for request in requests]

    def _find(self, requests: Sequence[Request], wanted: Wanted) -> list[Answer]:
        """Return the answer for each of the requests; nobody fails for another's hits."""
        try:
            since, clock = time.monotonic(), StageClock()
            features = [self._features(hits_of(request)) for request in requests]
            if self._columns is not None:
                clock.stop("features")
            found = self._pipeline.run_events(features, wanted)
            preparation, spent = clock.timings(), reduce(add, (each.timings for each in found))
            self._count(preparation, spent, found)
            work = Work(since, {**preparation.seconds, **spent.seconds})
            return [Answer(Outcome("answered"), _outputs(each.tracks), work) for each in found]
        except InputError as error:
            outcome = Outcome.unusable(str(error))
        except Exception as error:
            names = ", ".join(request.request_id for request in requests)
            pb.Logger.log_error(f"request {names}: {traceback.format_exc()}")
            outcome = Outcome("failed", f"the server failed: {type(error).__name__}: {error}")
        if len(requests) == 1:
            return [Answer(outcome)]
        return [answer for request in requests for answer in self._find([request], wanted)]

    def _features(self, rows: Float32) -> Float32:
        if len(rows) > self._max_hits:
            message = (
                f"the event has {len(rows):,} hits; this server takes at most {self._max_hits:,}"
            )
            raise InputError(message)
        return rows if self._columns is None else feature_matrix(rows, self._columns)

    def _count(self, preparation: Timings, spent: Timings, found: Sequence[TimedTracks]) -> None:
        """Count the stages of these events, and their tracks."""
        self._counters.add_timings(replace(preparation, events=len(found)))
        self._counters.add_timings(spent)
        self._counters.add(metrics.TRACKS, sum(len(each.tracks) for each in found))
        self._note_memory()

    def _note_memory(self) -> None:
        """Set the gauges of the device's memory."""
        if (memory := self._pipeline.device_memory()) is not None:
            for kind, value in memory.bytes.items():
                labels = self._pipeline.device, kind, self._served, memory.name
                self._counters.set(metrics.DEVICE_BYTES, value, *labels)


def _outputs(tracks: Tracks) -> list[Any]:
    """Return tracks as Triton's tensors."""
    outputs = [pb.Tensor(LABELS.name, tracks.labels)]
    if tracks.parameters is not None:
        outputs.append(pb.Tensor(PARAMETERS.name, tracks.parameters.matrix()))
    return outputs


def _sendable(parameters: Mapping[str, bool | float | str]) -> dict[str, bool | str]:
    """Return a request's parameters as a model may send them to another: a float as its text."""
    return {n: value if isinstance(value, bool) else str(value) for n, value in parameters.items()}


def _trace(request: Request) -> dict[str, str]:
    """Return the parameter by which the stages know a request's trace, if it is recorded."""
    return {} if request.traced is None else {TRACEPARENT: request.traced.header()}


class Ensemble:
    """A chain of Triton's models, one for each stage."""

    def __init__(self, name: str) -> None:
        self._model = model_named(name)

    def find(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answer for each of the requests, one after the other."""
        return [self._ask(request) for request in requests]

    def _ask(self, request: Request) -> Answer:
        wanted = request.wanted
        try:
            response = pb.InferenceRequest(
                model_name=self._model.name,
                requested_output_names=[tensor.name for tensor in wanted.outputs(self._model)],
                inputs=[tensor_of(request)],
                request_id=request.request_id,
                parameters=_sendable(wanted.request()) | _trace(request),
            ).exec()
            if not response.has_error():
                return Answer(Outcome("answered"), response.output_tensors())
            reason = response.error().message()
        except InputError as error:
            return Answer(Outcome("unusable", str(error)))
        except Exception as error:  # the next one is answered
            reason = f"the server failed: {type(error).__name__}: {error}"
        # An error's code is lost on the way, so its text identifies it.
        _, unusable, why = reason.partition(UNUSABLE)
        return Answer(Outcome.unusable(why) if unusable else Outcome("failed", reason))
