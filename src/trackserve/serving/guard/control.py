"""Pages that are answered at a socket in a folder, for its owner and for the guard."""

from __future__ import annotations

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from typing import TYPE_CHECKING

from trackserve.errors import InputError, ServerError, TrackserveError
from trackserve.serving.guard.clusters import CONTROL
from trackserve.serving.sockets import LONGEST_PATH, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ASK_SECONDS = 30.0


@contextlib.contextmanager
def answering(
    folder: Path,
    pages: Mapping[str, Callable[[], str]],
    actions: Mapping[str, Callable[[str], str]] | None = None,
) -> Iterator[None]:
    """Answer GET of ``pages`` and POST of ``actions`` at a socket in a folder while the context lasts.

    Raises :class:`InputError` if somebody answers there already, or the path is too long.
    """
    path = folder / CONTROL
    if len(bytes(path)) > LONGEST_PATH:
        message = f"{folder} is too long for a socket's path; choose a shorter folder"
        raise InputError(message)
    with contextlib.suppress(OSError):
        ask(path, "GET", "/", timeout=ASK_SECONDS)
        message = f"another fleet runs in {folder}; choose another folder, or stop it first"
        raise InputError(message)
    path.unlink(missing_ok=True)
    handler = type("Handler", (_Handler,), {"pages": pages, "actions": actions or {}})
    with _Server(str(path), handler, bind_and_activate=False) as server:
        server.daemon_threads = True
        server.server_bind()
        path.chmod(0o600)
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, name="control")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


class _Server(ThreadingUnixStreamServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Callable[[], str]]
    actions: Mapping[str, Callable[[str], str]]

    def do_GET(self) -> None:
        self._do(self.pages.get(self.path))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.actions.get(self.path)
        self._do(None if action is None else lambda: action(text))

    def _do(self, act: Callable[[], str] | None) -> None:
        if act is None:
            self._answer(http.client.NOT_FOUND, f"{self.path} isn't known")
            return
        try:
            self._answer(http.client.OK, act())
        except ServerError as error:
            self._answer(http.client.INTERNAL_SERVER_ERROR, str(error))
        except (TrackserveError, OSError) as error:
            self._answer(http.client.BAD_REQUEST, str(error))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
