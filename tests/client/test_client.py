from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.client import Client, find_tracks
from trackserve.client.failures import without_model
from trackserve.client.http import Http
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.errors import InputError, ServerError, UnreachableError
from trackserve.event import Hits
from trackserve.serving.server import Server
from trackserve.serving.service import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER_MODEL = """
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("OUT", np.zeros(1, np.float32))]) for _ in requests]
"""
OTHER_CONFIG = """
backend: "python"
input { name: "IN" data_type: TYPE_FP32 dims: -1 }
output { name: "OUT" data_type: TYPE_FP32 dims: -1 }
"""


@contextlib.contextmanager
def relay(path: Path) -> Iterator[str]:
    """An address, host:port, behind which a socket of this machine answers."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(2**16):
                sink.sendall(content)
            sink.shutdown(socket.SHUT_RDWR)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as inner:
                inner.connect(str(path))
                back = threading.Thread(target=pump, args=(inner, self.request))
                back.start()
                pump(self.request, inner)
                back.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def other_server(tmp_path_factory):
    """A server of somebody else: one model of another name, one of our name."""
    repository = tmp_path_factory.mktemp("other")
    for name in ("resnet", "exatrkx"):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(OTHER_MODEL)
        (repository / name / "config.pbtxt").write_text(OTHER_CONFIG)
    with (
        Server(repository) as server,
        relay(server.sockets["grpc"]) as grpc,
        relay(server.sockets["http"]) as http,
    ):
        yield {"grpc": f"grpc://{grpc}", "http": f"http://{http}"}


@pytest.mark.service
def test_one_call_gives_tracks(monolith):
    hits = straight_tracks(tracks=30)
    tracks = find_tracks(hits, monolith.grpc_url.removeprefix("grpc://"))
    assert len(tracks.labels) == len(hits)
    assert len(tracks) > 0


@pytest.mark.service
def test_hits_and_arrays_give_the_same_tracks(url):
    hits = straight_tracks(tracks=30)
    positions = np.stack([hits.x, hits.y, hits.z], axis=1)
    with Client(url) as client:
        expected = client.find_tracks(hits).labels
        for array in (positions, positions.astype(np.float64), np.asfortranarray(positions)):
            np.testing.assert_array_equal(client.find_tracks(array).labels, expected)
        bare = Hits(hit_id=hits.hit_id, x=hits.x, y=hits.y, z=hits.z)
        np.testing.assert_array_equal(client.find_tracks(bare).labels, expected)


@pytest.mark.service
@pytest.mark.parametrize(
    ("hits", "message"),
    [
        (np.ones(3), r"hits are float64 \[3\]; expected numbers of shape \[N, 3\]: x, y, z"),
        (np.ones((4, 2)), "hits have 2 columns without names; this model takes x, y, z$"),
        (np.array([["a", "b", "c"]]), r"hits are <U1 \[1, 3\]; expected numbers"),
        (np.ones((2, 3), bool), r"hits are bool \[2, 3\]; expected numbers"),
    ],
)
def test_arrays_that_are_no_hits_are_refused(monolith, hits, message):
    with Client(monolith.grpc_url) as client, pytest.raises(InputError, match=message):
        client.find_tracks(hits)


@pytest.mark.parametrize("url", ["localhost", "ftp://localhost:1", "localhost:port", "", "a b:1"])
def test_an_url_that_is_none_is_refused(url):
    with pytest.raises(InputError, match="is not a server; expected host:port"):
        Client(url)


@pytest.mark.parametrize("scheme", ["", "grpc://", "http://"])
def test_an_unreachable_server_is_named(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"{scheme}127.0.0.1:{port}"
    with Client(url, tries=2) as client, pytest.raises(UnreachableError) as raised:
        client.find_tracks(np.ones((1, 3)))
    assert str(raised.value).startswith(f"nothing listens at {url}; ")


@pytest.mark.parametrize("scheme", ["grpc://", "http://"])
def test_a_server_that_does_not_answer_is_given_up(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with Client(url, timeout=0.3) as client, pytest.raises(ServerError) as raised:
            client.find_tracks(np.ones((1, 3)))
    assert str(raised.value) == f"no answer from {url} within 0.3 s"
    assert time.monotonic() - started < 5


@pytest.mark.service
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_with_other_models_says_what_it_has(other_server, protocol):
    url = other_server[protocol]
    with Client(url) as client:
        with pytest.raises(ServerError) as raised:
            client.find_tracks(np.ones((1, 3)))
        assert str(raised.value) == (f"{url} has no model 'track_finding'; it has: exatrkx, resnet")
        with pytest.raises(InputError, match="unexpected inference input 'FEATURES'"):
            client.find_tracks_from_features(np.ones((1, 3)))


def test_a_server_that_lists_the_model_that_it_does_not_have_is_stopping():
    error = without_model("host:1", "track_finding", ["exatrkx", "track_finding"])
    assert isinstance(error, UnreachableError)
    assert "it is stopping" in str(error)


def test_a_server_that_lists_no_models_is_not_said_to_lack_one(tmp_path):
    # A web server: like a tritonserver that is stopping, it knows neither the model nor the list.
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever).start()
        try:
            with (
                Client(f"http://127.0.0.1:{web.server_port}", tries=1) as client,
                pytest.raises(ServerError, match="no other models to name: it is stopping, or"),
            ):
                client.find_tracks(np.ones((1, 3)))
        finally:
            web.shutdown()


class _Web(BaseHTTPRequestHandler):
    """A server that answers everything with the same words, after a while."""

    protocol_version = "HTTP/1.1"
    words, seconds = b"", 0.0

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.seconds)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.words)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.words)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web(words=b"", seconds=0.0):
    handler = type("Handler", (_Web,), {"words": words, "seconds": seconds})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "words",
    [
        *(b"", b"<html>welcome</html>", b"[]", b"{}"),
        b'{"outputs": [{"name": "LABELS", "datatype": "INT64", "shape": [7]}]}',
    ],
)
def test_an_answer_that_is_none_of_a_triton_server_is_named(words):
    named = re.escape(f"its answer is not one of a Triton server: {words[:40]!r}")
    with web(words) as url, contextlib.closing(Http(url.removeprefix("http://"), 5.0)) as http:
        with pytest.raises(InferenceServerException, match=named):
            http.infer(TRACK_FINDING, np.ones((7, 3), np.float32), timeout=5.0)
        if not words.startswith(b"{"):
            with Client(url, tries=1) as client, pytest.raises(ServerError, match=named):
                client.find_tracks(np.ones((7, 3)))


def test_over_http_each_request_has_its_own_deadline():
    with (
        web(b"{}", seconds=0.4) as url,
        contextlib.closing(Http(url.removeprefix("http://"), 5.0)) as http,
    ):
        assert http.get("/") == {}
        with pytest.raises(TimeoutError):
            http.infer(TRACK_FINDING, np.ones((7, 3), np.float32), timeout=0.1)
        assert http.get("/") == {}  # not the answer to the request that was given up


@pytest.mark.service
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_answer_that_takes_too_long_or_never_comes_is_given_up(tiny_bundle, protocol):
    hits = straight_tracks(tracks=3000, noise=5000)
    with serve(tiny_bundle, **FREE_PORTS, restarts=0) as server:
        url = server.grpc_url if protocol == "grpc" else server.http_url
        with (
            Client(url, timeout=0.05) as client,
            pytest.raises(ServerError, match=rf"no answer from {url} within 0\.0\d+ s"),
        ):
            client.find_tracks(hits)
        with Client(url, tries=2) as client:
            client.find_tracks(hits)
            threading.Timer(0.05, os.kill, (server.pid, signal.SIGKILL)).start()
            with pytest.raises(
                ServerError, match=f"{url} can't be reached|nothing listens at {url}"
            ):
                for _ in range(1000):
                    client.find_tracks(hits)
