"""What every part of Envoy's configuration is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.serving.guard.remote import Remote
    from trackserve.serving.guard.tracing import Tracing

API = "type.googleapis.com/envoy"
WINDOW = 16 * 2**20
CONNECTIONS = 4096

Config = dict[str, Any]


@dataclass(frozen=True, order=True)
class Address:
    """Where a server on another machine listens: an IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Place = Path | Address
"""Where a server listens: a Unix socket, or an address of another machine."""


@dataclass(frozen=True)
class Front:
    """What Envoy listens on and lets in.

    ``room`` is how many requests of a protocol may be in flight, ``most_bytes`` the largest request.
    ``remote`` is how to reach servers on other machines; None for those on this one. ``tracing`` is where
    spans go, None for nowhere.
    """

    folder: Path
    address: str
    ports: Sequence[int]
    room: int
    most_bytes: int
    tls: bool = False
    client_certificates: bool = False
    access_log: Path | None = None
    remote: Remote | None = None
    tracing: Tracing | None = None


def at(place: Place) -> Config:
    """Return the address of a server."""
    if isinstance(place, Path):
        return pipe(place)
    return {"socket_address": {"address": place.host, "port_value": place.port}}


def pipe(path: Path) -> Config:
    """Return the address of a Unix socket."""
    return {"pipe": {"path": str(path)}}


def typed(kind: str, **values: object) -> Config:
    """Return a message of one of Envoy's types."""
    return {"@type": f"{API}.{kind}", **values}


def watched_secret(folder: Path, name: str) -> Config:
    """Return where Envoy reads a certificate or token: from a watched file, so that it can be renewed."""
    path = {"path": str(folder / f"{name}.json")}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": path}}
