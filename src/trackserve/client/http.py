"""The KServe protocol over HTTP/1.1 with tensors in binary, one request at a time.

Python's own client, on a socket of ours, so that each attempt has a deadline of its own that holds
however slowly an answer drips in.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    triton_to_np_dtype,
)

from trackserve.client.tracing import trace_headers
from trackserve.contract.wanted import LABELS_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trackserve.contract.tensors import Model
    from trackserve.contract.wanted import Wanted

T = TypeVar("T")

HEAD_LENGTH = "Inference-Header-Content-Length"
"""The header that states how many bytes of a body are JSON; the tensors follow."""


MOST_BYTES = 2**30
"""An answer of more bytes is not one of ours: reading stops there."""
_CHUNK = 2**20


class _Socket(socket.socket):
    """A socket whose every wait ends at one deadline (of the monotonic clock, s)."""

    deadline = 0.0

    def recv_into(self, *arguments: Any) -> int:
        """Receive, for as long as is left; raises :class:`TimeoutError` at the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*arguments)


def _connect(address: tuple[str, int], timeout: float, *arguments: Any) -> _Socket:
    plain = socket.create_connection(address, timeout, *arguments)
    opened = _Socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    opened.settimeout(timeout)
    return opened


class _UnixConnection(http.client.HTTPConnection):
    """One to a socket of this machine."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = _Socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.deadline = time.monotonic() + (self.timeout or 0.0)
        self.sock.connect(self._path)


class _TlsSocket(ssl.SSLSocket):
    """As :class:`_Socket`, over TLS."""

    deadline = math.inf

    def recv_into(self, *arguments: Any) -> int:
        """Receive, for as long as is left; raises :class:`TimeoutError` at the deadline."""
        if self.deadline < math.inf:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.settimeout(left)
        return super().recv_into(*arguments)


def open_connection(
    address: str, timeout: float, context: ssl.SSLContext | None = None
) -> http.client.HTTPConnection:
    """Return a connection to ``host:port`` or ``unix:PATH``; it connects when it is first needed."""
    if context is not None:
        context.sslsocket_class = _TlsSocket
        return http.client.HTTPSConnection(address, timeout=timeout, context=context)
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"), timeout)
    return http.client.HTTPConnection(address, timeout=timeout)


class Http:
    """A connection, opened when it is first needed.

    Raises :class:`InferenceServerException` for what the server refuses, :class:`TimeoutError` for
    no byte within the timeout (s), :class:`OSError` or :class:`http.client.HTTPException` for a broken one.
    """

    def __init__(
        self,
        address: str,
        timeout: float,
        *,
        context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout, self._headers = timeout, dict(headers or {})
        self._connection = open_connection(address, timeout, context)
        if context is None:
            self._connection._create_connection = _connect  # type: ignore[attr-defined]  # its one hook

    def infer(
        self,
        model: Model,
        array: NDArray[Any],
        *,
        timeout: float,
        request_id: str = "",
        wanted: Wanted = LABELS_ONLY,
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs of a model for its one input, by name."""
        sent = {"binary_data_size": array.nbytes}
        head = inference_head(model, array.shape, sent, request_id=request_id, asked=wanted)
        headers = {HEAD_LENGTH: str(len(head)), **trace_headers()}
        if request_id:
            headers["x-request-id"] = request_id
        body = (head, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        answer, length = self.ask("POST", inference_path(model), body, headers, timeout)
        try:
            return _tensors(answer, length)
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError, struct.error):
            raise _no_answer_of_ours(answer) from None

    def get(self, path: str) -> dict[str, Any]:
        """Return what the server answers at a path."""
        return _read(self.ask("GET", path, b"", {}, self._timeout)[0], dict)

    def post(self, path: str) -> list[Any]:
        """Return what the server answers to an empty message."""
        return _read(self.ask("POST", path, b"{}", {}, self._timeout)[0], list)

    def close(self) -> None:
        """Close the connection; another request opens it again."""
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | tuple[bytes | memoryview, ...],
        headers: Mapping[str, str],
        timeout: float,
    ) -> tuple[bytes, int]:
        """Return an answer's body, and how much of it is JSON.

        The parts of a ``body`` are sent one after the other: joining them would copy the event.
        """
        if isinstance(body, tuple):
            length = sum(len(part) for part in body)
            headers = {**headers, "Content-Length": str(length)}
        connection, deadline = self._connection, time.monotonic() + timeout
        connection.timeout = timeout
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.deadline = deadline  # type: ignore[union-attr]  # ours
            connection.sock.settimeout(timeout)  # what sending may take in all
            try:
                connection.request(method, path, body, {**self._headers, **headers})
            except (BrokenPipeError, ConnectionResetError) as error:
                response = _refusal(connection, error)
            else:
                response = connection.getresponse()
            answer = _read_all(response)
        except ssl.SSLError:  # one kind of which is a ValueError, too
            connection.close()
            raise
        except ValueError as error:  # lengths that are no numbers
            connection.close()
            message = f"its answer is not HTTP: {error}"
            raise InferenceServerException(message, str(int(http.client.OK))) from None
        except BaseException:
            connection.close()
            raise
        check(response.status, answer)
        json_length = response.headers.get(HEAD_LENGTH, str(len(answer)))
        if not json_length.isdecimal() or int(json_length) > len(answer):
            raise _no_answer_of_ours(answer)
        return answer, int(json_length)


def _refusal(connection: http.client.HTTPConnection, error: OSError) -> http.client.HTTPResponse:
    """Return the answer to a request that was refused before it was sent as a whole, if one came."""
    try:
        return connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise error from None


def _read_all(response: http.client.HTTPResponse) -> bytes:
    """Return the body; memory is taken as it arrives, whatever length was announced."""
    parts, size = [], 0
    while chunk := response.read(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            message = f"its answer has more than {MOST_BYTES:,} bytes"
            raise http.client.HTTPException(message)
    if response.length:
        message = f"its answer ended {response.length:,} bytes early"
        raise http.client.HTTPException(message)
    return b"".join(parts)


def inference_path(model: Model) -> str:
    """Return where a model takes requests."""
    return f"/v2/models/{model.name}/infer"


def inference_head(
    model: Model,
    shape: Sequence[int],
    sent: Mapping[str, Any],
    wanted: Mapping[str, Any] | None = None,
    *,
    request_id: str = "",
    asked: Wanted = LABELS_ONLY,
) -> bytes:
    """Return the JSON of a request: where its one input is, and the output ``wanted``, if not all.

    ``asked`` is what the request asks for beside labels.
    """
    (tensor,), (output,) = model.inputs, model.outputs
    given = {"name": tensor.name, "shape": shape, "datatype": tensor.dtype, "parameters": sent}
    request: dict[str, Any] = {"inputs": [given]}
    if wanted is None:
        request["parameters"] = {"binary_data_output": True, **asked.request()}
    else:
        request["outputs"] = [{"name": output.name, "parameters": wanted}]
    if request_id:
        request["id"] = request_id
    return json.dumps(request).encode()


def _tensors(answer: bytes, length: int) -> dict[str, NDArray[Any]]:
    """Return the outputs by name; they follow ``length`` bytes of JSON in binary, in its order."""
    tensors, begin = {}, length
    for output in json.loads(answer[:length])["outputs"]:
        end = begin + int(output["parameters"]["binary_data_size"])
        if not begin <= end <= len(answer):
            raise _no_answer_of_ours(answer)
        if output["datatype"] == "BYTES":
            numbers = deserialize_bytes_tensor(answer[begin:end])
        else:
            numbers = np.frombuffer(answer[begin:end], triton_to_np_dtype(output["datatype"]))
        tensors[output["name"]] = numbers.reshape(output["shape"])
        begin = end
    return tensors


def _read(answer: bytes, kind: type[T]) -> T:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(answer), kind):
            return found
    raise _no_answer_of_ours(answer)


def _no_answer_of_ours(answer: bytes) -> InferenceServerException:
    message = f"its answer is not one of a Triton server: {answer[:40]!r}"
    return InferenceServerException(message, str(int(http.client.OK)))


def check(status: int, answer: bytes) -> None:
    """Raise the server's error, if it answered with one."""
    if status == http.client.OK:
        return
    try:
        reason = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = answer[:200].decode(errors="replace")
    raise InferenceServerException(reason, str(status))
