"""What every part of Envoy's configuration is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

API = "type.googleapis.com/envoy"
WINDOW = 16 * 2**20
CONNECTIONS = 4096

Config = dict[str, Any]


@dataclass(frozen=True)
class Front:
    """What Envoy listens on and lets in.

    ``room`` is how many requests of a protocol may be in flight, ``most_bytes`` the largest request.
    """

    folder: Path
    address: str
    ports: Sequence[int]
    room: int
    most_bytes: int
    tls: bool = False
    client_certificates: bool = False
    access_log: Path | None = None


def pipe(path: Path) -> Config:
    """Return the address of a Unix socket."""
    return {"pipe": {"path": str(path)}}


def typed(kind: str, **values: object) -> Config:
    """Return a message of one of Envoy's types."""
    return {"@type": f"{API}.{kind}", **values}
