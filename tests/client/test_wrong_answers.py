"""What a server that is broken, slow or hostile answers is one sentence of the client, in time.

No real server can be made to answer so, so these are sockets that send prepared bytes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from trackserve.client import Client
from trackserve.client.core import as_tracks
from trackserve.client.http import Http
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.errors import InputError, NobodyListensError, ServerError, UnreachableError

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def server(*pieces: bytes, pause: float = 0.0):
    """A server that sends these pieces to whoever asks, with a pause between them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(2**20)
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def failure(url: str, timeout: float = 5.0) -> ServerError:
    with Client(url, timeout=timeout, tries=1) as client, pytest.raises(ServerError) as raised:
        client.find_tracks(np.ones((3, 3)))
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_deadline_holds_against_a_server_that_drips(part):
    drops = [b"x"] * 400
    pieces = [HEAD, *drops] if part == "head" else [HEAD + b"Content-Length: 400\r\n\r\n", *drops]
    with server(*pieces, pause=0.05) as url:
        began = time.monotonic()
        assert "no answer from" in str(failure(url, timeout=1.0))
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 100\r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        HEAD + b"Content-Length: many\r\n\r\n{}",
        HEAD + b"Content-Length: -5\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Inference-Header-Content-Length: ten\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Inference-Header-Content-Length: 1000\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"\xff" * 70_000,
        HEAD + b"\r\n" + b"[" * 100_000,
        HEAD + b"\r\nnull",
    ],
)
def test_an_answer_that_is_none_is_one_sentence(answer):
    with server(answer) as url:
        failure(url)


@pytest.mark.parametrize("length", ["ten", "-1", "1000", "1e3"])
def test_a_length_that_is_no_length_is_a_server_fault(length):
    head = json.dumps({"outputs": []}).encode()
    fields = f"Inference-Header-Content-Length: {length}\r\nContent-Length: {len(head)}\r\n\r\n"
    with server(HEAD + fields.encode() + head) as url:
        client = Http(url.removeprefix("http://"), 5.0)
        with pytest.raises(Exception, match="its answer is not one of a Triton server"):
            client.infer(TRACK_FINDING, np.ones((2, 3), np.float32), timeout=5.0)
        client.close()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 2]),
        np.array([0]),
        np.array([-2, 0]),
        np.array([0.0, 1.0]),
        np.array([2**40, 0]),
    ],
)
def test_wrong_labels_are_the_servers_fault_not_the_users(labels):
    with pytest.raises(ServerError) as raised:
        as_tracks(labels, np.ones((2, 3), np.float32), "somewhere:8000")
    assert not isinstance(raised.value, InputError)
    assert "somewhere:8000 answered" in str(raised.value)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_where_nothing_listens_the_first_event_fails_soon(scheme):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"{scheme}://127.0.0.1:{port}"
    began = time.monotonic()
    with Client(url) as client, pytest.raises(NobodyListensError) as raised:
        client.find_tracks(np.ones((3, 3)))
    assert time.monotonic() - began < 3
    assert f"nothing listens at {url}; start a server with `trackserve serve`" in str(raised.value)


def test_a_client_may_wait_for_a_server_that_is_still_to_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    began = time.monotonic()
    with (
        Client(f"http://127.0.0.1:{port}", timeout=8.0, wait=True) as client,
        pytest.raises(UnreachableError, match="gave up after"),
    ):
        client.find_tracks(np.ones((3, 3)))
    assert time.monotonic() - began > 3


def test_a_refusal_that_comes_while_the_request_is_sent():
    """The server answers on the head alone and closes; most of the body is never read."""
    answer = b'{"error":"too many bytes"}'
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(refused)
                time.sleep(0.2)  # the client's buffers are full by then; what is unread resets

        thread = threading.Thread(target=refuse)
        thread.start()
        http = Http(f"127.0.0.1:{listener.getsockname()[1]}", 10)
        with pytest.raises(InferenceServerException, match="too many bytes"):
            http.infer(TRACK_FINDING, np.ones((3_000_000, 3), np.float32), timeout=10)
        http.close()
        thread.join()
