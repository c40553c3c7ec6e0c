"""Counts in a model's process, reported to Triton now and then: each report is a round trip to the server."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb

from trackserve.contract import metrics

if TYPE_CHECKING:
    from trackserve.contract.metrics import Metric
    from trackserve.pipeline.timings import Timings

PERIOD = 0.5
"""Seconds between two reports; unchanged counts are not reported."""


class Counters:
    """What this process has counted of the metrics, for its bundle; any thread may count."""

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle
        self._lock = threading.Lock()
        self._added: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._values: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._families: dict[Metric, Any] = {}
        self._metrics: dict[tuple[Metric, tuple[str, ...]], Any] = {}
        threading.Thread(target=self._tell_always, name="counters", daemon=True).start()

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Count further; ``labels`` are the values of the metric's labels after the bundle.

        A gauge goes up and down.
        """
        with self._lock:
            key = metric, (self._bundle, *labels)
            self._added[key] = self._added.get(key, 0.0) + amount

    def set(self, gauge: Metric, value: float, *labels: str) -> None:
        """Let a gauge stand at a value; ``labels`` as of :meth:`add`."""
        with self._lock:
            key = gauge, (self._bundle, *labels)
            change = value - self._values.get(key, 0.0)
            self._values[key] = value
            self._added[key] = self._added.get(key, 0.0) + change

    def add_latency(self, model: str, hits: int, seconds: float) -> None:
        """Count an answered request in the histogram of its model and size.

        Triton's Python backend has counters but no histograms, so each bucket is a counter; Prometheus'
        functions take them as they are. Buckets of nothing are reported, too: they bound the quantile.
        """
        size = metrics.size_class(hits)
        for bound in (*metrics.LATENCY_BOUNDS, math.inf):
            name = "+Inf" if bound == math.inf else f"{bound:g}"
            self.add(metrics.LATENCY, int(seconds <= bound), model, size, name)
        self.add(metrics.LATENCY_SUM, seconds, model, size)
        self.add(metrics.LATENCY_COUNT, 1, model, size)

    def add_timings(self, timings: Timings) -> None:
        """Count the events, seconds and edges of each stage that ran."""
        for stage, seconds in timings.seconds.items():
            self.add(metrics.EVENTS, timings.events, stage)
            self.add(metrics.SECONDS, seconds, stage)
        for stage, edges in timings.edges.items():
            self.add(metrics.EDGES, edges, stage)

    def report(self) -> None:
        """Hand over what was counted since the last time."""
        with self._lock:
            added, self._added = self._added, {}
        for key, amount in added.items():
            if key not in self._metrics:
                self._metrics[key] = self._new(*key)
            if amount:
                self._metrics[key].increment(amount)

    def _tell_always(self) -> None:
        while True:
            time.sleep(PERIOD)
            try:
                self.report()
            except pb.TritonModelException:  # the server is stopping
                return

    def _new(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        if metric not in self._families:
            kind = pb.MetricFamily.COUNTER if metric.kind == "counter" else pb.MetricFamily.GAUGE
            self._families[metric] = pb.MetricFamily(
                name=metric.name, description=metric.meaning, kind=kind
            )
        named = dict(zip(metric.labels, labels, strict=True))
        return self._families[metric].Metric(labels=named)
