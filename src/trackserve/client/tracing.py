"""OpenTelemetry's spans of a client's events, where the program that uses it traces anything.

A program that does has imported OpenTelemetry; this file imports nothing, and costs nothing else.
"""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trackserve.contract.trace import TRACES_PATH, check_collector
from trackserve.errors import needs_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

API = "opentelemetry.trace"
PROPAGATOR = "opentelemetry.trace.propagation.tracecontext"


def event_span(model: str, request_id: str, hits: int) -> AbstractContextManager[Any]:
    """Return a context that is the span of an event with all its attempts, if this program traces."""
    trace = sys.modules.get(API)
    if trace is None:
        return contextlib.nullcontext()
    span: AbstractContextManager[Any] = trace.get_tracer("trackserve").start_as_current_span(
        "find_tracks",
        kind=trace.SpanKind.CLIENT,
        attributes={
            "trackserve.model": model,
            "trackserve.request_id": request_id,
            "trackserve.hits": hits,
        },
    )
    return span


def trace_headers() -> dict[str, str]:
    """Return the headers that carry the current span to a server (W3C trace context), if there is one."""
    headers: dict[str, str] = {}
    if API in sys.modules:
        import_module(PROPAGATOR).TraceContextTextMapPropagator().inject(headers)
    return headers


@contextlib.contextmanager
def tracing_to(collector: str, service: str) -> Iterator[None]:
    """Let this program trace, and send its spans to ``collector`` (``http://host:port``).

    They have been sent when the context ends. ``service`` is the program's name in the traces.
    """
    url = f"{check_collector(collector)}{TRACES_PATH}"
    with needs_extra("trace", "sending spans"):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
