"""What a client may send: each hostile request is answered with one sentence, and the server lives on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import stat
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.client import Client
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError, UnreachableError
from trackserve.serving.guard.settings import GuardSettings
from trackserve.serving.process import children
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.serving.service import Service

pytestmark = pytest.mark.service
HITS = straight_tracks(tracks=20)
INFER = "/v2/models/track_finding/infer"
NUMBERS = [31.0, 5.0, 12.0, 71.0, 11.5, 27.0]


@pytest.fixture(scope="module")
def running(tiny_bundle) -> Iterator[Service]:
    with serve(tiny_bundle, Settings(max_hits=100_000), **FREE_PORTS) as service:
        yield service


@pytest.fixture
def service(running, tiny_bundle) -> Iterator[Service]:
    """A service that is the same process after each test, and answers rightly."""
    before = running.pid, children(running.pid)
    yield running
    assert (running.pid, children(running.pid)) == before
    right = ReferencePipeline(tiny_bundle).find_tracks(HITS).labels
    for url in (running.grpc_url, running.http_url):
        with Client(url) as client:
            np.testing.assert_array_equal(client.find_tracks(HITS).labels, right)


def post(service: Service, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    address = service.http_url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=20)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused while it is sent
        connection.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


def event(shape: list[int] | None = None, **more: object) -> bytes:
    given = {"name": "HITS", "shape": [2, 3] if shape is None else shape, "datatype": "FP32"}
    return json.dumps({"inputs": [{**given, "data": NUMBERS, **more}]}).encode()


def refusal(answer: tuple[int, str]) -> str:
    status, text = answer
    assert status == 400, text
    sentence = json.loads(text)["error"]
    assert "\n" not in sentence
    assert "/" not in sentence
    return sentence


def test_json_as_triton_takes_it(service):
    status, text = post(service, INFER, event())
    assert status == 200, text
    assert json.loads(text)["outputs"][0]["data"] == [-1, -1]
    nested = event(data=[NUMBERS[:3], NUMBERS[3:]])
    assert post(service, INFER, nested)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"inputs":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"inputs":[{"name":"HITS","shape":[2,3],"datatype":"FP32","data":' + b"[" * 200_000,
        b'{"a":' * 200_000,
    ],
)
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
def test_deep_json(service, body, path):
    sentence = refusal(post(service, path, body))
    assert (
        "nested deeper than 16" in sentence
        or "at most 65536 bytes" in sentence
        or "has the" in (sentence)
        or "takes at most" in sentence
    )


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([10**12, 3], "more elements"),
        ([7, 2**31], "more elements"),
        ([10**8, 3], "more elements"),
        ([100_000, 3], "needs 300000 numbers, got 6"),
        ([-1, 3], "not a whole number"),
        ([2.5, 3], "not a whole number"),
        ([2**31, ["x"]], "not a whole number"),
        ([2, 3, 1], "unexpected shape"),
        ([], "unexpected shape"),
        ([1] * 9, "9 dimensions"),
    ],
)
def test_shapes_that_are_not_those_of_the_data(service, shape, reason):
    assert reason in refusal(post(service, INFER, event(shape)))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no body"),
        (b"null", "not a map"),
        (b"{", "not valid"),
        (b'{"inputs":[]}', "expected 1 inputs but got 0"),
        (event() + b"x", "something follows"),
        (event(data="x"), "without its numbers"),
        (event(data=["x"] * 6), "lists of numbers"),
        (event(name="POINTS"), "unexpected inference input 'POINTS'"),
        (event(datatype="FP64"), "data-type is 'FP64'"),
        (event(parameters={"shared_memory_region": "x"}), "no tensors through shared memory"),
        (event(parameters={"binary_data_size": 24}), "either data or a binary_data_size"),
        # What Triton would read is not what was checked.
        (
            event().replace(b'"shape"', b'"sh\\u0061pe": [1000000000000, 3], "shape"'),
            "written with escapes",
        ),
        (event(shape=[90_000, 3], data={"count": 270_000}), "without its numbers"),
        (event(shape={"is_list": True}), "not a list"),
        (event()[:-1] + b', "parameters": 7}', "request params"),
        (
            event()[:-1] + b', "outputs": [{"name": "LABELS", "parameters": {"binary_data": 7}}]}',
            "non-boolean",
        ),
        (event().replace(b"31.0", b"1e999"), "too big"),
    ],
)
def test_json_that_is_no_event(service, body, reason):
    assert reason in refusal(post(service, INFER, body))


def test_binary_data_of_another_length(service):
    head = event(data=None, parameters={"binary_data_size": 24}).replace(b'"data": null, ', b"")
    headers = {"inference_header_content_length": str(len(head))}
    assert post(service, INFER, head + b"\0" * 24, **headers)[0] == 200
    assert "bytes of binary data" in refusal(post(service, INFER, head + b"\0" * 20, **headers))
    for wrong in ("-1", "x", "99999999999", "0"):
        answer = post(service, INFER, head, inference_header_content_length=wrong)
        assert "not a length" in refusal(answer)


def test_compressed_bodies(service):
    for encoding, packed in (("gzip", gzip.compress(event())), ("deflate", zlib.compress(event()))):
        status, text = post(service, INFER, packed, content_encoding=encoding)
        assert (status, json.loads(text)["outputs"][0]["data"]) == (200, [-1, -1])
    bomb = gzip.compress(b" " * 50_000_000)
    assert "becomes larger" in refusal(post(service, INFER, bomb, content_encoding="gzip"))
    packed = gzip.compress(event())
    for damaged in (packed[:-1], packed[:-8] + b"\0" * 8, packed[:20] + b"\xff\xff" + packed[22:],
                    packed + b"x", b"\x1f\x8b", event()):  # fmt: skip
        assert "damaged" in refusal(post(service, INFER, damaged, content_encoding="gzip"))
    assert "compressed as" in refusal(post(service, INFER, event(), content_encoding="br"))


def test_chunks_of_one_byte(service):
    body = event()
    connection = http.client.HTTPConnection(service.http_url.removeprefix("http://"), timeout=20)
    connection.request("POST", INFER, iter([bytes([byte]) for byte in body]), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["outputs"][0]["data"]) == (200, [-1, -1])
    connection.close()


def test_a_body_that_is_too_large(service):
    assert "takes at most" in refusal(post(service, INFER, b"0" * 2_000_000))


@pytest.mark.parametrize("path", ["/v2/logging", "/v2/trace/setting", "/v2/repository/models/x/load",
                                  "/v2/systemsharedmemory/status", "/v2/models/../health/x", "/fle%2fet/roll"])  # fmt: skip
def test_management_is_closed(service, path):
    status, text = post(service, path, b"{}")
    assert status in {400, 404}
    assert "trackserve-key" not in text


def ask(service: Service, request: object, method: str = "ModelInfer") -> grpc.RpcError:
    with grpc.insecure_channel(service.grpc_url.removeprefix("grpc://")) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        body = request if isinstance(request, bytes) else request.SerializeToString()  # type: ignore[attr-defined]
        with pytest.raises(grpc.RpcError) as raised:
            call(body, timeout=20)
    return raised.value


def infer_request(shape: list[int], content: bytes | None) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="track_finding")
    request.inputs.add(name="HITS", datatype="FP32", shape=shape)
    if content is not None:
        request.raw_input_contents.append(content)
    return request


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        ([-(2**63), 3], None),
        ([-(2**63), 3], b""),
        ([6148914691236517206, 3], b"\0" * 8),
        ([10**12, 3], b"\0" * 12),
        ([2, 3], b"\0" * 23),
        ([2, 3], None),
        ([0, 3], b"\0" * 12),
        ([-1, 3], b"\0" * 12),
        ([2**31, 2**31], b""),
    ],
)
def test_grpc_shapes_that_are_not_those_of_the_data(service, shape, content):
    error = ask(service, infer_request(shape, content))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "/" not in error.details()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 100,
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0b" * 1000,
        b"\x2a\x00" * 5000,
        struct.pack("<B", 0x3A) + b"\x80" * 20,
        infer_request([2, 3], b"\0" * 24).SerializeToString() + b"\x0a\x01x",
    ],
)
def test_messages_that_are_none(service, body):
    assert ask(service, body).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_names_and_methods_that_are_not_there(service):
    request = infer_request([2, 3], b"\0" * 24)
    request.model_name = "x" * 200
    assert ask(service, request).code() == grpc.StatusCode.NOT_FOUND
    closed = ask(service, service_pb2.LogSettingsRequest(), "LogSettings")
    assert closed.code() == grpc.StatusCode.PERMISSION_DENIED
    with grpc.insecure_channel(service.grpc_url.removeprefix("grpc://")) as channel:
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
        with pytest.raises(grpc.RpcError, match="not a stream"):
            list(stream(iter([request]), timeout=20))


def test_compressed_messages(service):
    sent = tritonclient.grpc.InferInput("HITS", [2, 3], "FP32")
    sent.set_data_from_numpy(np.reshape(np.float32(NUMBERS), (2, 3)))
    address = service.grpc_url.removeprefix("grpc://")
    with tritonclient.grpc.InferenceServerClient(address) as client:
        for algorithm in ("gzip", "deflate"):
            found = client.infer("track_finding", [sent], compression_algorithm=algorithm)
            assert found.as_numpy("LABELS").tolist() == [-1, -1]


def test_nothing_secret_is_in_an_argument_and_nobody_else_reaches_the_server(service):
    command = Path(f"/proc/{service.pid}/cmdline").read_text().split("\0")
    assert not any("key" in argument or "restricted" in argument for argument in command)
    for path in service.server.sockets.values():
        assert path.is_socket()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in listening if row[3] == "0A"}
    own = set()
    for descriptor in Path(f"/proc/{service.pid}/fd").iterdir():
        link = str(descriptor.readlink())
        own |= {link[8:-1]} if link.startswith("socket:[") else set()
    assert not own & inodes


def test_the_guard_counts(service):
    post(service, INFER, b"{")
    connection = http.client.HTTPConnection(service.metrics_url.split("/")[2])
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    assert 'trackserve_guard_requests_total{client="",outcome="malformed"}' in page
    assert "nv_inference_count" in page


def test_an_event_that_killed_a_process_is_not_sent_again_and_set_aside(tiny_bundle):
    """The process is killed by us while it works: twice with the same event."""
    slow = straight_tracks(tracks=9000, noise=15000)
    right = ReferencePipeline(tiny_bundle).find_tracks(HITS).labels
    guard = GuardSettings(aside_seconds=60)
    with serve(tiny_bundle, Settings(), guard=guard, **FREE_PORTS) as service:
        from concurrent.futures import ThreadPoolExecutor

        def find() -> None:
            with Client(service.grpc_url, tries=1) as client:
                client.find_tracks(slow)

        for killed in (1, 2):
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(find)
                while not service.guard.in_flight():
                    time.sleep(0.01)
                time.sleep(0.1)
                os.kill(service.pid, signal.SIGKILL)
                with pytest.raises(UnreachableError, match="not sent again"):
                    asked.result()
            with Client(service.grpc_url, tries=20) as client:
                np.testing.assert_array_equal(client.find_tracks(HITS).labels, right)
            assert len(service.restarted) == killed
        with Client(service.grpc_url, tries=20) as client:
            with pytest.raises(InputError, match="set aside"):
                client.find_tracks(slow)
            np.testing.assert_array_equal(client.find_tracks(HITS).labels, right)


def test_an_event_beside_which_somebody_killed_the_server_is_answered(tiny_bundle):
    slow = straight_tracks(tracks=3000, noise=5000)
    with (
        serve(tiny_bundle, Settings(), **FREE_PORTS) as service,
        Client(service.grpc_url, tries=20) as client,
    ):
        threading.Timer(0.1, os.kill, (service.pid, signal.SIGKILL)).start()
        labels = client.find_tracks(slow).labels
        while not service.restarted:  # on a fast machine the first answer came before the kill
            labels = client.find_tracks(slow).labels
    right = ReferencePipeline(tiny_bundle).find_tracks(slow).labels
    np.testing.assert_array_equal(labels, right)


def test_shared_memory_is_for_its_owner_alone(service):
    regions = list(Path("/dev/shm").glob(f"{service.server._region}*"))
    assert regions
    assert all(stat.S_IMODE(region.stat().st_mode) & 0o077 == 0 for region in regions)


@pytest.mark.parametrize("path", ["/v2/%00/ready", "/v2#"])
@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+json", "application/json"])
def test_a_path_that_http_forbids(service, path, kind):
    headers = f"host: x\r\ncontent-type: {kind}\r\ncontent-length: 0\r\n"
    with socket.create_connection(("127.0.0.1", service.ports["http"]), timeout=10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode())
        answer = connection.recv(4096).decode()
    if "grpc" in kind:
        assert "grpc-status: 3\r\ngrpc-message: the request's path is not" in answer
    else:
        assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")


def test_a_broken_connection_is_no_death(service):
    """What breaks a connection, but no process, is not set aside; nor are those beside it."""
    message = infer_request([2, 3], b"\0" * 24).SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    for odd in ({"grpc-timeout": "x"}, {"accept": "x" * 20_000}, {"x-envoy-retry-on": "reset"}):
        headers = {"content-type": "application/grpc", "te": "trailers", **odd}
        status, _ = post(service, "/inference.GRPCInferenceService/ModelInfer", body, **headers)
        assert status == 200
    page = service.metrics()
    assert 'outcome="died"' not in page


def test_a_deadline_is_the_clients_to_keep(service):
    """Tritonserver would cancel the request as it is answered, and may end of that."""
    message = infer_request([2, 3], b"\0" * 24).SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "1n"}
    for _ in range(20):
        status, text = post(service, "/inference.GRPCInferenceService/ModelInfer", body, **headers)
        assert status == 200
        assert "LABELS" in text
