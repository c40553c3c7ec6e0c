"""Bad input gets one sentence that says what is wrong, and the server serves on."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
import tritonclient.grpc

from served import BUDGET_HITS, FREE_PORTS, MAX_HITS, counted, refusals, wait_for
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import BudgetError, InputError, ServerError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

pytestmark = pytest.mark.service
HITS = straight_tracks(tracks=20)


@pytest.fixture
def client(url, tiny_bundle):
    """A client of a server that must still answer rightly after each test."""
    with Client(url) as client:
        yield client
        labels = client.find_tracks(HITS).labels
    np.testing.assert_array_equal(labels, ReferencePipeline(tiny_bundle).find_tracks(HITS).labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_coordinate_that_is_not_finite(client, value):
    positions = np.ones((5, 3))
    positions[3, 1] = value
    with pytest.raises(InputError) as raised:
        client.find_tracks(positions)
    assert str(raised.value) == f"hit row 3: y is {value}; every hit needs finite numbers"


def test_a_feature_that_is_not_finite(client):
    features = np.ones((5, 3))
    features[2, 0] = np.nan
    with pytest.raises(InputError, match=r"row 2: r is nan"):
        client.find_tracks_from_features(features)


def test_more_hits_than_the_limit(client):
    with pytest.raises(InputError, match="takes at most"):
        client.find_tracks(np.ones((1_000_000, 3)))  # more than the guard takes
    with pytest.raises(InputError) as raised:
        client.find_tracks(np.ones((10_000, 3)))
    assert str(raised.value) == (
        f"the event has 10,000 hits; this server takes at most {MAX_HITS:,}"
    )
    with pytest.raises(InputError, match="at most"):
        client.find_tracks_from_features(np.ones((MAX_HITS + 1, 3)))


def test_an_event_beyond_its_budget_is_refused_once_and_counted(client, server):
    name = 'trackserve_requests_total{bundle="tiny",model="track_finding",outcome="over_budget"}'
    before = counted(server).get(name, 0)
    with pytest.raises(BudgetError) as raised:
        client.find_tracks(np.ones((BUDGET_HITS + 5, 3)))
    assert str(raised.value) == "over budget: the event has 1,995 hits; expected at most 1,990"
    with pytest.raises(BudgetError, match="1,995 hits"):
        client.find_tracks_from_features(np.ones((BUDGET_HITS + 5, 3)))
    assert wait_for(server, name, before + 1)[name] == before + 1, "it was sent more than once"


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "reason"),
    [
        ("HITS", (4, 5), "FP32", r"unexpected shape for input 'HITS'.*\[-1,3\], got \[4,5\]"),
        ("HITS", (12,), "FP32", r"unexpected shape for input 'HITS'"),
        ("HITS", (4, 3), "FP64", r"data-type is 'FP64', but model 'track_finding' expects 'FP32'"),
        ("POINTS", (4, 3), "FP32", r"unexpected inference input 'POINTS'"),
    ],
)
def test_tensors_that_do_not_fit(client, server, name, shape, dtype, reason):  # noqa: PLR0917
    array = np.ones(shape, np.float32 if dtype == "FP32" else np.float64)
    sent = tritonclient.grpc.InferInput(name, list(shape), dtype)
    sent.set_data_from_numpy(array)
    address = server.grpc_url.removeprefix("grpc://")
    with (
        tritonclient.grpc.InferenceServerClient(address) as raw,
        pytest.raises(tritonclient.grpc.InferenceServerException, match=reason) as raised,
    ):
        raw.infer("track_finding", [sent])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("shape", ["monolith", "ensemble"])
def test_a_network_that_fails_on_an_event_does_not_end_the_service(shape, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    _fail_below(100, bundle.gnn_path)
    bundle = read_bundle(bundle.path)
    with serve(bundle, Settings(shape=shape), **FREE_PORTS) as server:
        with Client(server.grpc_url) as client:
            with pytest.raises(ServerError, match=r"the server failed.*: .*Gather"):
                client.find_tracks(straight_tracks(tracks=5))
            labels = client.find_tracks(HITS).labels
        until = time.monotonic() + 10  # Triton's log comes when it comes
        while "Traceback" not in server.log():
            assert time.monotonic() < until
            time.sleep(0.02)
    np.testing.assert_array_equal(labels, ReferencePipeline(bundle).find_tracks(HITS).labels)


def test_requests_beyond_the_queue_are_refused_and_the_others_answered(tiny_bundle):
    hits = straight_tracks(tracks=12000, noise=20000)  # slow: all ask before one is answered
    expected = ReferencePipeline(tiny_bundle).find_tracks(hits).labels
    with serve(tiny_bundle, Settings(max_queue=1), **FREE_PORTS) as server:
        urls = [server.grpc_url, server.http_url] * 4
        refused = refusals(urls, hits, expected)
        with Client(server.grpc_url) as client:
            np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
    assert 0 < len(refused) < 8
    assert all("refused the request: the queue is full: 1 requests wait" in str(r) for r in refused)
    assert all(0 < r.retry_after < 60 for r in refused)


def test_a_request_that_waits_too_long_is_refused(tiny_bundle):
    hits = straight_tracks(tracks=12000, noise=20000)  # slow: all ask before one is answered
    expected = ReferencePipeline(tiny_bundle).find_tracks(hits).labels
    with serve(tiny_bundle, Settings(queue_timeout=0.001), **FREE_PORTS) as server:
        refused = refusals([server.grpc_url] * 8, hits, expected)
    assert 0 < len(refused) < 8
    assert all("this server's limit is 0.001 s; retry after" in str(each) for each in refused)


def _fail_below(hits: int, path) -> None:
    """Let a network read the row of a hit that events with fewer hits don't have."""
    model = onnx.load(path)
    row = onnx.numpy_helper.from_array(np.array(hits - 1), "row")
    model.graph.initializer.append(row)
    read = onnx.helper.make_node("Gather", ["features", "row"], ["far"])
    zero = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "zero_row")
    model.graph.initializer.append(zero)
    nothing = onnx.helper.make_node("Mul", ["far", "zero_row"], ["nothing"])
    same = onnx.helper.make_node("Add", ["features", "nothing"], ["seen"])
    for node in model.graph.node:
        node.input[:] = ["seen" if name == "features" else name for name in node.input]
    for node in (same, nothing, read):
        model.graph.node.insert(0, node)
    onnx.save(model, path)


def test_a_limit_below_the_hits_of_the_warm_up(tiny_bundle):
    with (
        serve(tiny_bundle, Settings(max_hits=3), **FREE_PORTS) as server,
        Client(server.grpc_url) as client,
    ):
        assert client.find_tracks(np.ones((3, 3))).labels.tolist() == [-1] * 3
        with pytest.raises(InputError, match="at most 3"):
            client.find_tracks(np.ones((4, 3)))
