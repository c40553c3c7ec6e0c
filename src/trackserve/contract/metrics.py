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

METRICS = (REQUESTS, PENDING, QUEUE_SECONDS, EVENTS, SECONDS, EDGES, HITS, TRACKS)
