"""HTTP over a Unix socket, for what listens in a folder of its owner."""

from __future__ import annotations

import contextlib
import http.client
import socket
from pathlib import Path

LONGEST_PATH = 107
"""Bytes of a socket's path, by Linux."""
CONNECTED = "03"
"""The state of a socket with a connection in Linux' list of them."""


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


def connected(*paths: Path) -> bool:
    """Whether somebody has a connection to one of these sockets, as Linux lists them."""
    sockets = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = set(map(str, paths))
    lines = (line.split(maxsplit=7) for line in sockets)
    return any(line[-1] in wanted and line[5] == CONNECTED for line in lines)


class _Connection(http.client.HTTPConnection):
    """One that has its socket already."""

    def connect(self) -> None:
        """Do nothing: the socket is connected."""
