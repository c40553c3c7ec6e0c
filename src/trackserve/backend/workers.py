"""What finds the tracks of the requests that a served model has taken: a worker for each at a time."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import triton_python_backend_utils as pb

from trackserve.backend.entry import WARM_UP_HITS
from trackserve.contract import metrics
from trackserve.contract.tensors import FEATURES, LABELS, MODELS, UNUSABLE
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.pipeline.features import feature_matrix
from trackserve.pipeline.timings import StageClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.backend.counters import Counters
    from trackserve.bundle import Bundle
    from trackserve.contract.tensors import Tensor
    from trackserve.engines.base import TimedTracks
    from trackserve.event import Float32
    from trackserve.pipeline.timings import Timings


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


Answer = tuple[Outcome, Any]
"""What became of a request, and its labels as one of Triton's tensors if there are any."""


class Worker(Protocol):
    """Finds the tracks of some events at a time, given as Triton's tensors."""

    def find(self, events: Sequence[Any], request_ids: Sequence[str]) -> list[Answer]:
        """Return the answer for each of the events."""


class Monolith:
    """The whole pipeline in this process, from hits or scaled features to labels."""

    def __init__(
        self, bundle: Bundle, says: Mapping[str, str], given: Tensor, counters: Counters
    ) -> None:
        self._columns = None if given is FEATURES else bundle.features
        self._max_hits = int(says["max_hits"])
        self._counters = counters
        precision = says["precision"]
        self._pipeline = open_pipeline(
            bundle,
            engine=says["engine"],
            device=says["device"],
            threads=int(says["threads"]),
            precision=None if precision == "bundle" else precision,
        )
        # Run once: what can't fails at the start, and a first event is fast.
        hits = min(WARM_UP_HITS, self._max_hits)
        self._pipeline.find_tracks_from_features(
            np.random.default_rng(0).random((hits, len(bundle.features.columns)), np.float32)
        )

    def find(self, events: Sequence[Any], request_ids: Sequence[str]) -> list[Answer]:
        """Return the answer for each of the events; nobody fails for another's hits."""
        try:
            clock = StageClock()
            features = [self._features(event.as_numpy()) for event in events]
            if self._columns is not None:
                clock.stop("features")
            found = self._pipeline.run_events(features)
            self._count(clock.timings(), found)
            return [
                (Outcome("answered"), pb.Tensor(LABELS.name, each.tracks.labels)) for each in found
            ]
        except InputError as error:
            outcome = Outcome("unusable", str(error))
        except Exception as error:
            pb.Logger.log_error(f"request {', '.join(request_ids)}: {traceback.format_exc()}")
            outcome = Outcome("failed", f"the server failed: {type(error).__name__}: {error}")
        if len(events) == 1:
            return [(outcome, None)]
        return [
            answer
            for event, request_id in zip(events, request_ids, strict=True)
            for answer in self.find([event], [request_id])
        ]

    def _features(self, rows: Float32) -> Float32:
        if len(rows) > self._max_hits:
            message = (
                f"the event has {len(rows):,} hits; this server takes at most {self._max_hits:,}"
            )
            raise InputError(message)
        return rows if self._columns is None else feature_matrix(rows, self._columns)

    def _count(self, preparation: Timings, found: Sequence[TimedTracks]) -> None:
        """Count the stages of these events, and their tracks."""
        self._counters.add_timings(replace(preparation, events=len(found)))
        self._counters.add_timings(reduce(add, (each.timings for each in found)))
        self._counters.add(metrics.TRACKS, sum(len(each.tracks) for each in found))


class Ensemble:
    """A chain of Triton's models, one for each stage."""

    def __init__(self, name: str) -> None:
        self._model = MODELS[name]

    def find(self, events: Sequence[Any], request_ids: Sequence[str]) -> list[Answer]:
        """Return the answer for each of the events, one after the other."""
        return [self._ask(*each) for each in zip(events, request_ids, strict=True)]

    def _ask(self, event: Any, request_id: str) -> Answer:
        try:
            response = pb.InferenceRequest(
                model_name=self._model.name,
                requested_output_names=[LABELS.name],
                inputs=[event],
                request_id=request_id,
            ).exec()
            if not response.has_error():
                (labels,) = response.output_tensors()
                return Outcome("answered"), labels
            reason = response.error().message()
        except Exception as error:  # the next one is answered
            reason = f"the server failed: {type(error).__name__}: {error}"
        # An error's code is lost on the way, so its text says what it is.
        _, unusable, why = reason.partition(UNUSABLE)
        return (Outcome("unusable", why) if unusable else Outcome("failed", reason)), None
