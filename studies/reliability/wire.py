"""Sending a request as bytes over a socket of ours, well formed or not, and judging the answer."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from studies.reliability.corpus import Request

HANG_SECONDS = 10.0
GRPC_FINE = {0, 3, 4, 5, 7, 8, 12, 14, 16}
"""OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED (ours), NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED."""
DEATHS = ("ended while", "broke off", "no server answers")
"""In a sentence that says that a process of the server has died."""
INTERNAL = re.compile(
    r"/tmp|/dev/|trackserve-server|python_env|Stub|\.cc\b|\.py\b|Traceback|0x[0-9a-f]{6}|shm_|unix:"
)
"""What no sentence to a client may name."""


@dataclass(frozen=True)
class Answer:
    """What came back: ``status`` of HTTP (0 for a connection that closed without an answer) and gRPC."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def grpc_status(self) -> int | None:
        """GRPC's status, where one came in the headers."""
        text = self.headers.get("grpc-status", "")
        return int(text) if text.isdecimal() else None

    @property
    def sentence(self) -> str:
        """What a refusal says."""
        if said := self.headers.get("grpc-message"):
            return said
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode(errors="replace")


class Wire:
    """A connection that is opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._rest = b""
        self._fresh = self._sent = True
        self._deadline = 0.0

    def send(self, request: Request) -> Answer | None:
        """Return the answer, None to a request that was cut off; raises :class:`TimeoutError` after ten seconds."""
        self.begin(request)
        return self.finish(request)

    def begin(self, request: Request) -> None:
        """Send a request; :meth:`finish` must follow."""
        self._fresh = self._socket is None
        self._deadline = time.monotonic() + HANG_SECONDS
        content = head_and_body(request)
        if request.cut is not None:
            content = content[: max(1, request.cut)]
        try:
            connection = self._connect()
            connection.sendall(content)
            if request.raw:  # nothing more comes, whatever length it states
                connection.shutdown(socket.SHUT_WR)
        except TimeoutError:
            self.close()
            raise
        except OSError:
            self._sent = False  # refused before it was sent as a whole, or the connection was closed meanwhile
        else:
            self._sent = True

    def finish(self, request: Request) -> Answer | None:
        """Return the answer to the request that was sent last."""
        if request.cut is not None:
            self.close()
            return None
        self._deadline = time.monotonic() + HANG_SECONDS
        try:
            answer = self._read(head_only=request.method == "HEAD")
        except TimeoutError:
            self.close()
            raise
        except (OSError, ValueError, IndexError):
            self.close()
            if self._fresh:  # closed for this request
                return Answer(0)
            return self.send(request)
        if not self._sent or request.raw or answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _connect(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), HANG_SECONDS)
            self._socket.settimeout(HANG_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._rest = b""
        return self._socket

    def _read(self, head_only: bool) -> Answer:
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(head[0].split()[1])
            if status >= 200:
                break
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if head_only or status in {204, 304}:
            return Answer(status, headers)
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self._until(b"\r\n"), 16):
                parts.append(self._bytes(size))
                self._until(b"\r\n")
            self._until(b"\r\n")
            return Answer(status, headers, b"".join(parts))
        if "content-length" in headers:
            return Answer(status, headers, self._bytes(int(headers["content-length"])))
        return Answer(status, headers)

    def _until(self, end: bytes) -> bytes:
        while (at := self._rest.find(end)) < 0:
            self._more()
        found, self._rest = self._rest[:at], self._rest[at + len(end) :]
        return found

    def _bytes(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _more(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._socket is None:  # nobody listened
            message = "not connected"
            raise ConnectionError(message)
        self._socket.settimeout(left)
        got = self._socket.recv(65536)
        if not got:
            message = "closed"
            raise ConnectionError(message)
        self._rest += got


def head_and_body(request: Request) -> bytes:
    """Return a request as HTTP/1.1 has it."""
    if request.raw:
        return request.body
    headers = {"host": "x", **request.headers}
    body = request.body
    if request.chunks:
        headers["transfer-encoding"] = "chunked"
        pieces, at = [], 0
        for size in request.chunks:
            piece = body[at : at + size]
            pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
            at += size
        body = b"".join(pieces) + b"0\r\n\r\n"
    elif body or request.method not in {"GET", "HEAD"}:
        headers["content-length"] = str(len(body))
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        *(f"{n}: {v}" for n, v in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("utf-8", "replace") + body


def fault(request: Request, answer: Answer | None) -> str:
    """Return what is wrong with an answer, nothing if it is one that a client may get."""
    if answer is None:
        return ""
    if answer.status == 0:
        return (
            ""
            if request.raw or broken_http(request)
            else "the connection was closed without an answer"
        )
    said = answer.sentence if answer.status >= 400 or answer.grpc_status else ""
    if answer.status >= 500 and answer.status not in {501, 503}:
        return f"HTTP {answer.status}: {said}"
    if answer.grpc_status is not None and answer.grpc_status not in GRPC_FINE:
        return f"gRPC {answer.grpc_status}: {said}"
    if found := INTERNAL.search(said):
        return f"the sentence names {found[0]!r}: {said}"
    return said if any(each in said for each in DEATHS) else ""


def broken_http(request: Request) -> bool:
    """Whether headers or path are such that a proxy may close the connection."""
    text = request.path + "".join(f"{name}{value}" for name, value in request.headers.items())
    return (
        bool(re.search(r"[^\x21-\x7e]", text.replace(" ", "")))
        or len(text) > 20_000
        or "x" not in request.headers.get("host", "x")
    )
