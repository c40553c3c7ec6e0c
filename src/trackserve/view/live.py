"""The live display: a page from this machine that asks for one event after the other."""

from __future__ import annotations

import threading
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from trackserve.errors import InputError, TrackserveError
from trackserve.view.page import event_page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEPT = 4
"""Events whose blocks are kept: the one that is looked at, and its neighbours."""
LOOPBACK = "127.0.0.1"


class LiveDisplay(ThreadingHTTPServer):
    """Serves the page and its events on this machine alone, until it is closed.

    ``block`` returns the block of the event of a place among ``names``; it is called from one thread
    at a time. What it raises is shown on the page. Raises InputError where the port is taken.
    """

    daemon_threads = True

    def __init__(self, names: Sequence[str], block: Callable[[int], bytes], port: int = 0) -> None:
        self.page = event_page(live=names).encode()
        self.events = len(names)
        self._one_at_a_time = threading.Lock()
        self._block = lru_cache(KEPT)(block)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:  # the latter for a port above 65535
            reason = getattr(error, "strerror", None) or error
            message = f"can't listen on port {port}: {reason}; --port 0 picks a free one"
            raise InputError(message) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def block(self, index: int) -> bytes:
        """Return the block of an event."""
        with self._one_at_a_time:
            return self._block(index)


class _Handler(BaseHTTPRequestHandler):
    server: LiveDisplay
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page or an event."""
        if self.headers.get("Host", "").rpartition(":")[0] not in (LOOPBACK, "localhost"):
            self._answer(
                HTTPStatus.FORBIDDEN, "text/plain", b"ask for this page as 127.0.0.1 or localhost"
            )
            return
        folder, _, number = self.path.lstrip("/").partition("/")
        if not folder:
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        elif folder == "events" and number.isdecimal() and int(number) < self.server.events:
            self._event(int(number))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")

    def _event(self, index: int) -> None:
        try:
            block = self.server.block(index)
        except TrackserveError as error:
            text = str(error).encode()
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
        else:
            self._answer(HTTPStatus.OK, "application/octet-stream", block)

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
