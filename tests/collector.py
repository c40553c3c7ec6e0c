"""A collector of spans (OTLP over HTTP), made of the protocol's own messages."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages


@dataclass(frozen=True)
class Seen:
    """A span that was received, and who sent it."""

    service: str
    span: Any

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.key: a.value.string_value or a.value.int_value for a in self.span.attributes}


class Receiver:
    """A collector: takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self._seen: list[Seen] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                receiver.take(self.body())
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def body(self) -> bytes:
                """What was sent: with its length before it, or in chunks, as Envoy does."""
                if (length := self.headers["Content-Length"]) is not None:
                    return self.rfile.read(int(length))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def take(self, body: bytes) -> None:
        for resource in messages.ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {a.key: a.value.string_value for a in resource.resource.attributes}
            self._seen += [
                Seen(named["service.name"], span)
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def seen(self) -> list[Seen]:
        """The spans that have come."""
        return list(self._seen)

    def requests(self, wanted: set[str], service: str) -> set[str]:
        """The requests that a service has sent spans of, once the wanted ones are among them."""
        deadline = time.monotonic() + 20
        while True:
            ids = [
                s.attributes.get("trackserve.request_id", s.attributes.get("guid:x-request-id"))
                for s in self.seen()
                if s.service == service
            ]
            if wanted <= set(ids) or time.monotonic() > deadline:
                return {each for each in ids if each}
            time.sleep(0.05)

    def trace(self, trace_id: int, spans: int) -> list[Seen]:
        """The spans of a trace, once as many have come."""
        deadline = time.monotonic() + 20
        while True:
            found = [s for s in self.seen() if int.from_bytes(s.span.trace_id) == trace_id]
            if len(found) >= spans or time.monotonic() > deadline:
                assert len(found) == spans, [(s.service, s.span.name) for s in found]
                return found
            time.sleep(0.05)
