"""Spans of the requests whose trace is recorded, sent to a collector (OpenTelemetry, OTLP over HTTP).

A span of the request, below it one of its wait in the queue and one of each stage, from times that were
measured anyway. A thread makes and sends them: what answers requests leaves a few numbers, and never waits.
"""

from __future__ import annotations

import os
import platform
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from trackserve.contract import metrics
from trackserve.contract.trace import TRACES_PATH, new_span_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trackserve.backend.counters import Counters
    from trackserve.contract.trace import Traced

SERVICE = "trackserve"
WAITING = 2048
"""Records that may wait to be sent; further ones are dropped and counted."""
BATCH = 256
"""Records that are sent together."""
GATHER_SECONDS = 0.5
SEND_SECONDS = 5.0
"""How long to try to send a batch, while others wait."""
LAST_SECONDS = 2.0
"""How long a stopping process may take to send its last spans."""


class Part(NamedTuple):
    """What was done within a request: from when to when, by ``time.monotonic`` (s)."""

    name: str
    begin: float
    end: float


class Work(NamedTuple):
    """When a worker began with an event, by ``time.monotonic``, and the seconds of its stages in turn."""

    since: float
    seconds: Mapping[str, float]

    def parts(self) -> Iterator[Part]:
        """Yield the stages, laid end to end: what passes between two of them shows behind the last."""
        begin = self.since
        for stage, seconds in self.seconds.items():
            yield Part(stage, begin, begin + seconds)
            begin += seconds


@dataclass(frozen=True)
class Record:
    """A span and those below it, as they are left to be sent. ``error`` is why it failed, if it did."""

    name: str
    traced: Traced
    begin: float
    end: float
    attributes: Mapping[str, str | int]
    parts: Sequence[Part] = ()
    error: str = ""
    serves: bool = True
    """Whether it is a request from outside, not a part of one."""
    noted: float = field(default_factory=lambda: time.time() - time.monotonic())
    """What to add to ``time.monotonic`` for the time of day (s)."""


class Spans:
    """Takes records from any thread and sends them to ``collector``, ``http://host:port``."""

    def __init__(self, collector: str, counters: Counters) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from trackserve import __version__

        self._counters = counters
        self._exporter = OTLPSpanExporter(f"{collector}{TRACES_PATH}", timeout=SEND_SECONDS)
        self._made = _Maker(
            {
                "service.name": SERVICE,
                "service.version": __version__,
                "service.instance.id": f"{platform.node()}:{os.getpid()}",
            }
        )
        self._records: queue.Queue[Record] = queue.Queue(WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_always, name="spans", daemon=True)
        self._thread.start()

    def record(self, record: Record) -> None:
        """Take a record to be sent, or drop it if too many wait."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._count("dropped", 1 + len(record.parts))

    def close(self) -> None:
        """Send what is left, within a short time."""
        self._closing.set()
        self._thread.join(LAST_SECONDS)

    def _send_always(self) -> None:
        while not (self._closing.is_set() and self._records.empty()):
            if self._records.qsize() < BATCH:
                self._closing.wait(GATHER_SECONDS)
            batch: list[Record] = []
            while len(batch) < BATCH and not self._records.empty():
                batch.append(self._records.get_nowait())  # by this thread alone
            if batch:
                self._send([span for record in batch for span in self._made.spans(record)])

    def _send(self, spans: Sequence[Any]) -> None:
        sent = self._exporter.export(spans).name == "SUCCESS"  # it logs why not
        self._count("sent" if sent else "dropped", len(spans))

    def _count(self, outcome: str, spans: int) -> None:
        self._counters.add(metrics.SPANS, spans, outcome)


class _Maker:
    """Makes OpenTelemetry's spans of records."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan

        self._trace, self._span = trace, ReadableSpan
        self._resource = Resource.create(resource)

    def spans(self, record: Record) -> Iterator[Any]:
        """Yield the record's span and those of its parts."""
        traced, kinds = record.traced, self._trace.SpanKind
        own = self._context(traced.trace_id, traced.span_id)
        status = self._trace.Status(self._trace.StatusCode.UNSET)
        if record.error:
            status = self._trace.Status(self._trace.StatusCode.ERROR, record.error)
        yield self._span(
            record.name,
            own,
            self._context(traced.trace_id, traced.parent_id, remote=True),
            self._resource,
            attributes=record.attributes,
            kind=kinds.SERVER if record.serves else kinds.INTERNAL,
            status=status,
            start_time=_nanoseconds(record.begin + record.noted),
            end_time=_nanoseconds(record.end + record.noted),
        )
        for name, begin, end in record.parts:
            yield self._span(
                name,
                self._context(traced.trace_id, new_span_id()),
                own,
                self._resource,
                kind=kinds.INTERNAL,
                status=self._trace.Status(self._trace.StatusCode.UNSET),
                start_time=_nanoseconds(begin + record.noted),
                end_time=_nanoseconds(min(end, record.end) + record.noted),
            )

    def _context(self, trace_id: int, span_id: int, *, remote: bool = False) -> Any:
        flags = self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED)
        return self._trace.SpanContext(trace_id, span_id, is_remote=remote, trace_flags=flags)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
