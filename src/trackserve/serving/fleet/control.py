"""Talking to a fleet on its own machine: HTTP over a socket in its folder, for its owner alone."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import TYPE_CHECKING

from trackserve.bundle import read_bundle
from trackserve.client.status import FLEET_PATH
from trackserve.errors import InputError, ServerError, TrackserveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.serving.fleet import Fleet

SOCKET = "control.sock"
ROLL_PATH = "/fleet/roll"
LONGEST_PATH = 107
"""Bytes of a socket's path, by Linux."""


def ask(path: Path, method: str, target: str, body: str = "") -> tuple[int, str]:
    """Return status and text of what is answered at a socket; raises :class:`OSError` if nobody is there."""
    with contextlib.closing(_Connection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        try:
            connection.request(method, target, body.encode())
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None


class _Connection(http.client.HTTPConnection):
    """One that has its socket already."""

    def connect(self) -> None:
        """Do nothing: the socket is connected."""


def roll(folder: Path, bundle: Path) -> str:
    """Roll the fleet that runs in a folder to another bundle; return what it says when it is done.

    Raises :class:`InputError` for a bundle that can't be taken and :class:`ServerError` if there is
    no fleet or its roll fails.
    """
    try:
        status, text = ask(folder / SOCKET, "POST", ROLL_PATH, str(bundle.absolute()))
    except OSError as error:
        message = f"no fleet answers in {folder} ({error.strerror or error}); say its --folder"
        raise ServerError(message) from None
    if status == http.client.OK:
        return text
    raise (InputError if status == http.client.BAD_REQUEST else ServerError)(text)


@contextlib.contextmanager
def controlled(fleet: Fleet) -> Iterator[None]:
    """Answer for a fleet at the socket in its folder, for as long as the context lasts.

    Raises :class:`InputError` if another fleet runs in the folder, or its path is too long.
    """
    path = fleet.folder / SOCKET
    if len(bytes(path)) > LONGEST_PATH:
        message = f"{fleet.folder} is too long for a socket's path; choose a shorter folder"
        raise InputError(message)
    with contextlib.suppress(OSError):
        ask(path, "GET", "/")
        message = f"another fleet runs in {fleet.folder}; choose another folder, or stop it first"
        raise InputError(message)
    path.unlink(missing_ok=True)
    handler = type("Handler", (_Handler,), {"fleet": fleet})
    with ThreadingUnixStreamServer(str(path), handler, bind_and_activate=False) as server:
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


class _Handler(BaseHTTPRequestHandler):
    fleet: Fleet

    def do_GET(self) -> None:
        if self.path == FLEET_PATH:
            self._answer(http.client.OK, self.fleet.status())
        else:
            self._answer(http.client.NOT_FOUND, "")

    def do_POST(self) -> None:
        folder = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            if self.path != ROLL_PATH:
                message = f"{self.path} isn't known"
                raise InputError(message)
            self._answer(http.client.OK, self.fleet.roll(read_bundle(Path(folder))))
        except ServerError as error:
            self._answer(http.client.INTERNAL_SERVER_ERROR, str(error))
        except (TrackserveError, OSError) as error:
            self._answer(http.client.BAD_REQUEST, str(error))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
