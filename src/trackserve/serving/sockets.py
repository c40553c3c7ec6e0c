"""HTTP over a Unix socket, for what listens in a folder of its owner."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_PATH = 107
"""Bytes of a socket's path, by Linux."""


def ask(
    path: Path, method: str, target: str, body: str = "", *, timeout: float | None = None
) -> tuple[int, str]:
    """Return status and text of what is answered at a socket; raises :class:`OSError` if nobody is there."""
    with contextlib.closing(_Connection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
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
