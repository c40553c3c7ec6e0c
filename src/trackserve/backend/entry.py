"""What every entry of Triton's python backend shares: tensors in, tensors out, errors as answers."""

from __future__ import annotations

import asyncio  # noqa: F401  (Triton's stub imports it at the first request: 0.1 s)
import json
import time
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb

from trackserve.backend.counters import Counters
from trackserve.backend.parent import end_with_parent
from trackserve.backend.spans import Record, Spans
from trackserve.bundle import Bundle, read_bundle
from trackserve.contract import metrics
from trackserve.contract.tensors import (
    LABELS,
    UNUSABLE,
    bundle_folder,
    model_named,
    split_name,
)
from trackserve.contract.trace import Traced
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import InputError
from trackserve.pipeline.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

WARM_UP_HITS = 256


class Entry(ABC):
    """A model of the python backend, made from the bundle of its repository.

    Bad input is answered with one sentence, and so is a failure of ours: an instance serves on.
    """

    bundle: Bundle
    threads: int
    max_hits: int
    _counters: Counters | None = None
    _spans: Spans | None = None

    def networks(self) -> Collection[str] | None:
        """Return the names of the networks that it may run, None for all of the bundle."""
        return None

    def load(self) -> None:  # noqa: B027 - few stages need it
        """Get ready to run; there is nothing to do for a stage that needs the bundle's numbers only."""

    @abstractmethod
    def run(self, wanted: Wanted, *inputs: Any) -> tuple[NDArray[Any], ...]:
        """Return the model's outputs for its inputs, both in the order of the table of tensors."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the bundle and the model's configuration."""
        end_with_parent()
        parameters = json.loads(args["model_config"])["parameters"]
        self.threads = int(parameters["threads"]["string_value"])
        self.max_hits = int(parameters["max_hits"]["string_value"])
        self._stage_name, of_bundle = split_name(args["model_name"])
        self._table = model_named(args["model_name"])
        folder = Path(args["model_repository"]).parent / bundle_folder(of_bundle)
        bundle = read_bundle(folder, networks=self.networks())
        self.bundle = bundle.with_budget(json.loads(parameters["budget"]["string_value"]))
        self.load()
        self._warm_up()
        self._counters = Counters(json.loads(parameters["bundle"]["string_value"]))
        if collector := parameters["trace"]["string_value"]:
            self._spans = Spans(collector, self._counters)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Report the last counts and spans."""
        if self._spans is not None:
            self._spans.close()
        if self._counters is not None:
            self._counters.report()

    def count(self, outputs: Sequence[NDArray[Any]], seconds: float) -> None:
        """Count an event that the model has done in these seconds, and the edges or tracks in its outputs."""
        if self._counters is None:  # warming up
            return
        name, tensor, array = self._stage_name, self._table.outputs[0], outputs[0]
        edges = {name: array.shape[1]} if tensor.dims[0] == 2 else {}
        self._counters.add_timings(Timings({name: seconds}, edges))
        if tensor is LABELS:
            self._counters.add(metrics.TRACKS, int(array.max(initial=-1)) + 1)

    def check_count(self, hits: int) -> None:
        """Raise :class:`InputError` if an event has more hits than this server takes."""
        if hits > self.max_hits:
            message = f"the event has {hits:,} hits; this server takes at most {self.max_hits:,}"
            raise InputError(message)

    def made_up(self, hits: int) -> list[NDArray[Any]]:
        """Return made-up inputs of an event."""
        features = self.bundle.features
        sizes = {"C": len(features.wire_columns), "F": len(features.columns)}
        sizes |= {"D": self.bundle.embedding_dimension} | dict.fromkeys("NEPKT", hits)
        rng = np.random.default_rng(0)
        return [
            rng.random(tensor.shape(sizes), np.float32)
            if tensor.dtype == "FP32"
            else np.broadcast_to(np.arange(hits), tensor.shape(sizes)).copy()
            for tensor in self._table.inputs
        ]

    def _warm_up(self) -> None:
        """Run once on made-up tensors: a model that can't fails at the start, a first event is fast."""
        self.run(LABELS_ONLY, *self.made_up(min(WARM_UP_HITS, self.max_hits)))

    def _answer(self, request: Any) -> Any:
        try:
            given = [pb.get_input_tensor_by_name(request, t.name) for t in self._table.inputs]
            inputs = [tensor.as_numpy() for tensor in given]
            began = time.perf_counter()
            parameters = json.loads(request.parameters() or "{}")
            wanted = Wanted.of_request(parameters)
            outputs = self.run(wanted, *inputs)
            self.count(outputs, time.perf_counter() - began)
            self._trace(parameters, began)
            return pb.InferenceResponse(
                [
                    pb.Tensor(tensor.name, array)
                    for tensor, array in zip(wanted.outputs(self._table), outputs, strict=True)
                ]
            )
        except InputError as error:
            return _refusal(f"{UNUSABLE}{error}", pb.TritonError.INVALID_ARG)
        except Exception as error:
            name = f"{self._table.name}, request {request.request_id()}"
            pb.Logger.log_error(f"{name}: {traceback.format_exc()}")
            message = f"the server failed in {self._table.name}: {type(error).__name__}: {error}"
            return _refusal(message, pb.TritonError.INTERNAL)

    def _trace(self, parameters: Mapping[str, Any], began: float) -> None:
        """Record the span of a stage that has run, if its request's trace is recorded."""
        if self._spans is None or (traced := Traced.of_request(parameters)) is None:
            return
        # On Linux ``time.perf_counter`` is ``time.monotonic``.
        ended, name = time.perf_counter(), self._stage_name
        self._spans.record(Record(name, traced, began, ended, {}, serves=False))


def _refusal(message: str, code: int) -> Any:
    return pb.InferenceResponse(error=pb.TritonError(message, code))
