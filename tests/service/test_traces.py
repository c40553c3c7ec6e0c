"""Traces: one from the client through the guard to the stages, in a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from served import FREE_PORTS, MAX_HITS, wait_for
from tiny_bundle import straight_tracks
from trackserve.client import AsyncClient, Client
from trackserve.client.connection import connect
from trackserve.client.core import new_request_id
from trackserve.contract.tensors import STAGES, TRACK_FINDING
from trackserve.errors import InputError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector import Receiver, Seen
    from trackserve.serving.service import Service

SERVER, CLIENT = 2, 3
"""Kinds of spans, by the protocol."""
CLOCK_NS = 2_000_000
"""What clocks may differ by: Envoy's times are whole microseconds from a clock read at another moment."""
LATE_NS = 1_000_000_000
HITS = 123
SPANS = 4 + 1 + len(STAGES)
"""Of a trace: the job, the client, the guard, the server, the queue and the stages."""
ERROR = 2
RECORDED = f"00-{7:032x}-{9:016x}-01"
UNSAMPLED = f"00-{8:032x}-{9:016x}-00"


@pytest.fixture(scope="module")
def tracer(receiver: Receiver) -> Iterator[Any]:
    """What a program that traces has: OpenTelemetry, set up to send to the collector.

    What else this process asks of servers begins no trace.
    """
    exporter = SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces"))
    providers = [
        TracerProvider(sampler, Resource({"service.name": "job"}), shutdown_on_exit=False)
        for sampler in (sampling.ParentBased(sampling.ALWAYS_OFF), sampling.ALWAYS_ON)
    ]
    for provider in providers:
        provider.add_span_processor(exporter)
    api.set_tracer_provider(providers[0])
    yield providers[1].get_tracer("job")
    exporter.shutdown()


@pytest.fixture(scope="module")
def tracing(receiver: Receiver, tiny_bundle) -> Iterator[Service]:
    """A monolith that begins a trace for each request that is in none."""
    settings = Settings(max_hits=MAX_HITS, trace=f"{receiver.url}/")
    with serve(tiny_bundle, settings, **FREE_PORTS) as server:
        yield server


def by_name(seen: list[Seen]) -> dict[str, Seen]:
    """Each span by its name; no two have one."""
    assert Counter(s.span.name for s in seen).most_common(1)[0][1] == 1
    return {s.span.name: s for s in seen}


def check_tree(seen: list[Seen], job: int, request_id: str) -> None:
    """Job -> client -> guard -> server -> queue and stages, each within the one above."""
    named = by_name(seen)
    (guard,) = (s for s in seen if s.service == "trackserve-guard")
    above = {"job": None, "find_tracks": "job", guard.span.name: "find_tracks"}
    above["track_finding"] = guard.span.name
    above |= dict.fromkeys(["queue", *(stage.name for stage in STAGES)], "track_finding")
    assert named.keys() == above.keys()
    services = {"job": "job", "find_tracks": "job", guard.span.name: "trackserve-guard"}
    for name, parent in above.items():
        span = named[name].span
        assert named[name].service == services.get(name, "trackserve")
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        if parent is None:
            assert int.from_bytes(span.span_id) == job
            continue
        outer = named[parent].span
        assert span.parent_span_id == outer.span_id, f"{name} is not below {parent}"
        assert span.start_time_unix_nano >= outer.start_time_unix_nano - CLOCK_NS, name
        # The client may have its answer before Envoy, on a busy machine, gets to note the end.
        late = LATE_NS if parent == "find_tracks" else CLOCK_NS
        assert span.end_time_unix_nano <= outer.end_time_unix_nano + late, name
    order = [named[name].span for name in ("queue", *(stage.name for stage in STAGES))]
    for before, after in itertools.pairwise(order):
        assert before.end_time_unix_nano <= after.start_time_unix_nano + CLOCK_NS
    assert (guard.span.kind, named["track_finding"].span.kind) == (SERVER, SERVER)
    assert named["find_tracks"].span.kind == CLIENT
    for name in ("find_tracks", "track_finding"):
        assert named[name].attributes["trackserve.request_id"] == request_id
    assert named["find_tracks"].attributes["trackserve.hits"] == HITS
    assert named["track_finding"].attributes["trackserve.outcome"] == "answered"
    assert guard.attributes["guid:x-request-id"] == request_id


@pytest.mark.service
@pytest.mark.parametrize("name", ["tracing", "ensemble"])
def test_a_trace_goes_from_the_client_to_the_stages(name, request, receiver, tracer):
    server, hits = request.getfixturevalue(name), straight_tracks(tracks=12, noise=3)
    for url in (server.grpc_url, server.http_url):
        with Client(url) as client, tracer.start_as_current_span("job") as job:
            client.find_tracks(hits)
            request_id = client.request_id
        context = job.get_span_context()
        check_tree(receiver.trace(context.trace_id, SPANS), context.span_id, request_id)

    async def ask() -> Any:
        async with AsyncClient(server.grpc_url) as client:
            with tracer.start_as_current_span("job") as job:
                await client.find_tracks(hits, request_id="by hand")
            return job.get_span_context()

    context = asyncio.run(ask())
    check_tree(receiver.trace(context.trace_id, SPANS), context.span_id, "by hand")
    bundle = '{bundle="tiny",outcome="sent"}'
    wait_for(server, f"trackserve_spans_total{bundle}", 3 * (SPANS - 3))


@pytest.mark.service
def test_a_refused_request_has_a_span_that_says_why(tracing, receiver, tracer):
    too_many = np.zeros((MAX_HITS + 1, 3), np.float32)
    with (
        Client(tracing.grpc_url) as client,
        tracer.start_as_current_span("job") as job,
        pytest.raises(InputError, match="at most 2,000"),
    ):
        client.find_tracks(too_many)
    seen = by_name(receiver.trace(job.get_span_context().trace_id, 5))
    assert seen.keys() > {"job", "find_tracks", "track_finding", "queue"}  # no stage, and the guard
    for name in ("find_tracks", "track_finding"):
        assert seen[name].span.status.code == ERROR
        assert "this server takes at most 2,000" in seen[name].span.status.message
    assert seen["track_finding"].attributes["trackserve.outcome"] == "unusable"


@pytest.mark.service
def test_what_is_in_no_recorded_trace(tracing, ensemble, receiver):
    """It begins one at a server that is to begin them, if it came without a header."""
    array, sent = np.zeros((5, 3), np.float32), {}
    for server in (tracing, ensemble):
        # The last one is recorded in any case, and comes when those before it would have.
        for header in ("", UNSAMPLED, "none of W3C's", RECORDED):
            connection, request_id = connect(server.grpc_url, 10.0), new_request_id()
            connection._headers |= {"traceparent": header} if header else {}
            connection.infer(TRACK_FINDING, array, request_id=request_id)
            connection.close()
            begins = server is tracing and not header
            sent[request_id] = begins or header == RECORDED
    wanted = {request_id for request_id, recorded in sent.items() if recorded}
    for service in ("trackserve", "trackserve-guard"):
        found = receiver.requests(wanted, service)
        assert found & sent.keys() == wanted


@pytest.mark.service
def test_find_sends_a_span_of_each_event(tracing, receiver, tmp_path):
    hits = straight_tracks(tracks=3)
    path = tmp_path / "event000000007-hits.csv"
    places = zip(hits.x, hits.y, hits.z, strict=True)
    rows = [f"{i},{x},{y},{z}" for i, (x, y, z) in enumerate(places, 1)]
    path.write_text("\n".join(["hit_id,x,y,z", *rows]) + "\n")
    find = [sys.executable, "-m", "trackserve.cli", "find", str(path)]
    find += ["--server", tracing.grpc_url, "--trace", receiver.url]
    subprocess.run(find, check=True, capture_output=True)
    (span,) = (s for s in receiver.seen() if s.service == "trackserve-find")
    below = receiver.trace(int.from_bytes(span.span.trace_id), SPANS - 1)
    assert {s.service for s in below} == {"trackserve-find", "trackserve-guard", "trackserve"}
    assert not span.span.parent_span_id


@pytest.mark.parametrize("url", ["localhost:4318", "https://a:4318", "http://a:4318/v1/traces"])
def test_a_collector_that_is_none_is_refused(url):
    with pytest.raises(InputError, match="expected http://host:port"):
        Settings(trace=url)
