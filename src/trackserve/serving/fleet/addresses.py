"""The servers of other machines: their addresses, from a file, a folder of files or a DNS name.

A file has a line per server, ``host:port``; what follows ``#`` is a comment. A folder is the lines of all its
files: each server of a batch job adds a file of its own, and removes it. A DNS name, ``name:port``, stands
for all its addresses, as Kubernetes' headless service does.
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.errors import InputError
from trackserve.serving.guard.pieces import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NAMED = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


def addresses_from(servers: str) -> Callable[[], list[Address]]:
    """Return what reads the addresses that are behind ``servers`` now, in order, each once.

    That raises :class:`InputError` for a line that isn't an address, and :class:`OSError` for what can't
    be read or resolved now: the caller goes on with what it had.
    """
    path = Path(servers)
    if path.exists():
        return lambda: _resolved(_lines(path))
    if not _NAMED.fullmatch(servers):
        message = f"{servers} is neither a file or folder of addresses nor name:port"
        raise InputError(message)
    return lambda: _resolved([servers])


def _lines(path: Path) -> list[str]:
    found = path.read_text(encoding="utf-8").splitlines() if path.is_file() else _all_lines(path)
    return [text for line in found if (text := line.partition("#")[0].strip())]


def _all_lines(folder: Path) -> list[str]:
    found: list[str] = []
    for file in sorted(folder.iterdir()):
        # One being written has a name that begins with a dot; one may have gone since it was listed.
        if not file.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                found += file.read_text(encoding="utf-8").splitlines()
    return found


def _resolved(lines: Iterable[str]) -> list[Address]:
    found = set()
    for line in lines:
        if not (match := _NAMED.fullmatch(line)) or not 0 < int(match[2]) < 65_536:
            message = f"{line!r} is not the address of a server; expected host:port"
            raise InputError(message)
        host, port = match[1].strip("[]"), int(match[2])
        for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            found.add(Address(str(place[0]), port))
    return sorted(found)
