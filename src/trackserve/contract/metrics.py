"""The pipeline's own counters among Triton's metrics: the one table.

Rates and means come of them in Prometheus' language, for example the mean number of edges after the
filter: ``rate(trackserve_edges_total{stage="cut"}[5m]) / rate(trackserve_events_total{stage="cut"}[5m])``.
Each has the name of its bundle as its first label: a server may have several, and a fleet rolls from one to
the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BUNDLE = "bundle"


@dataclass(frozen=True)
class Metric:
    """A metric: its name, its labels, what it counts, and of what kind it is."""

    name: str
    labels: tuple[str, ...]
    meaning: str
    kind: Literal["counter", "gauge"] = "counter"


OUTCOMES = (
    *("answered", "full", "timeout", "stopping", "cancelled"),
    *("unusable", "over_budget", "failed"),
)
"""What becomes of a request: its tracks; refused for one of four reasons (a client that has gone is the
last); hits that can't be used; an event that would need more than its budget; a fault of the server's."""
REFUSALS = OUTCOMES[1:5]

REQUESTS = Metric(
    "trackserve_requests_total",
    (BUNDLE, "model", "outcome"),
    f"requests by what became of them: {', '.join(OUTCOMES)}",
)
PENDING = Metric(
    "trackserve_pending_requests", (BUNDLE, "model"), "requests that wait or are worked on", "gauge"
)
QUEUE_SECONDS = Metric(
    "trackserve_queue_seconds_total",
    (BUNDLE, "model"),
    "seconds that answered requests waited for their turn",
)
EVENTS = Metric("trackserve_events_total", (BUNDLE, "stage"), "events that a stage has done")
SECONDS = Metric("trackserve_seconds_total", (BUNDLE, "stage"), "seconds that a stage worked")
EDGES = Metric("trackserve_edges_total", (BUNDLE, "stage"), "edges that a stage returned")
HITS = Metric("trackserve_hits_total", (BUNDLE,), "hits of the events that were answered")
TRACKS = Metric("trackserve_tracks_total", (BUNDLE,), "tracks that were found")
SPANS = Metric(
    "trackserve_spans_total",
    (BUNDLE, "outcome"),
    "spans of traces by what became of them: sent to the collector, or dropped",
)
WARNINGS = Metric(
    "trackserve_warnings_total",
    (BUNDLE, "model"),
    "answers with a warning: features that are hardly those of the bundle",
)
DEVICE_BYTES = Metric(
    "trackserve_device_memory_bytes",
    (BUNDLE, "device", "kind", "model", "name"),
    "memory of the device of a model's engine: its `total`, the `limit` for the lists of an event, and what is "
    "`reserved` in the model's process",
    "gauge",
)

LATENCY_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper ends of the latency histogram's buckets, s; one without an end follows."""
SIZE_CLASSES = {"small": 5_000, "medium": 30_000, "large": 100_000}
"""Size classes of events by their largest number of hits; ``huge`` ones have more."""
LATENCY = Metric(
    "trackserve_latency_seconds_bucket",
    (BUNDLE, "model", "size", "le"),
    "answered requests by the seconds from their arrival to their answer (at most `le`), a histogram; sizes: "
    + ", ".join(f"{name} up to {hits:,} hits" for name, hits in SIZE_CLASSES.items())
    + ", else huge",
)
LATENCY_SUM = Metric(
    "trackserve_latency_seconds_sum", (BUNDLE, "model", "size"), "their seconds, added up"
)
LATENCY_COUNT = Metric(
    "trackserve_latency_seconds_count", (BUNDLE, "model", "size"), "their number"
)

METRICS = (
    *(REQUESTS, PENDING, QUEUE_SECONDS, LATENCY, LATENCY_SUM, LATENCY_COUNT),
    *(EVENTS, SECONDS, EDGES, HITS, TRACKS, WARNINGS, DEVICE_BYTES, SPANS),
)


def size_class(hits: int) -> str:
    """Return the size class of an event."""
    return next((name for name, most in SIZE_CLASSES.items() if hits <= most), "huge")
