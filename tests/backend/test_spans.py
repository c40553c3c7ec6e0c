"""Spans on their way to a collector: none waits for it, and what is dropped is counted."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from collector import Receiver
from trackserve.backend import spans as module
from trackserve.backend.spans import Part, Record, Spans, Work
from trackserve.contract import metrics
from trackserve.contract.trace import Traced

TRACED = Traced(7, 9, 11)


class Counts:
    """Counts as the model's process does, without its server."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()

    def add(self, metric: metrics.Metric, amount: float, *labels: str) -> None:
        assert metric is metrics.SPANS
        self.spans[labels[0]] += int(amount)


def record(*parts: Part) -> Record:
    return Record("track_finding", TRACED, 1.0, 2.0, {"trackserve.outcome": "answered"}, parts)


def test_a_collector_that_is_away_costs_spans_and_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "WAITING", 3)
    monkeypatch.setattr(module, "GATHER_SECONDS", 30.0)
    monkeypatch.setattr(module, "SEND_SECONDS", 0.1)
    with Receiver() as receiver:  # and so a port at which nobody listens
        collector = receiver.url
    counts = Counts()
    spans = Spans(collector, counts)
    for _ in range(5):
        spans.record(record(Part("queue", 1.0, 1.5)))
    assert counts.spans == {"dropped": 2 * 2}  # more than may wait
    spans.close()
    assert counts.spans == {"dropped": 5 * 2}


def test_the_last_spans_are_sent_when_the_process_ends(monkeypatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 30.0)
    counts, work = Counts(), Work(1.5, {"features": 0.1, "gnn": 0.6})
    with Receiver() as receiver:
        spans = Spans(receiver.url, counts)
        spans.record(record(Part("queue", 1.0, 1.5), *work.parts()))
        spans.close()
        seen = receiver.trace(7, 4)
    assert counts.spans == {"sent": 4}
    named = {each.span.name: each.span for each in seen}
    root = named["track_finding"]
    assert int.from_bytes(root.parent_span_id) == 9
    assert int.from_bytes(root.span_id) == 11
    times = {
        name: [round((t - root.start_time_unix_nano) / 1e9, 6) for t in
               (span.start_time_unix_nano, span.end_time_unix_nano)]
        for name, span in named.items()
    }  # fmt: skip
    # A stage's time that is rounded up never passes the end of its request.
    assert times == {
        "track_finding": [0.0, 1.0],
        "queue": [0.0, 0.5],
        "features": [0.5, 0.6],
        "gnn": [0.6, 1.0],
    }
    assert not [t for t in threading.enumerate() if t.name == "spans"]


@pytest.mark.parametrize(
    ("header", "recorded"),
    [
        (f"00-{7:032x}-{9:016x}-01", True),
        (f"01-{7:032x}-{9:016x}-03-of a later version", True),
        (f"00-{7:032x}-{9:016x}-00", False),
        (f"ff-{7:032x}-{9:016x}-01", False),
        (f"00-{0:032x}-{9:016x}-01", False),
        (f"00-{7:032x}-{0:016x}-01", False),
        (f"00-{7:032X}-{0xAB:016X}-01", False),
        ("", False),
        (3, False),
    ],
)
def test_which_requests_are_in_a_recorded_trace(header, recorded):
    found = Traced.of_request({"traceparent": header})
    assert (found is not None) == recorded
    if found is not None:
        assert (found.trace_id, found.parent_id) == (7, 9)
        assert found.header() == f"00-{7:032x}-{found.span_id:016x}-01"
    assert Traced.of_request({}) is None
