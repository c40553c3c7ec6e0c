"""Send hits, get tracks: machine-learning track finding behind a Triton Inference Server.

tracks = trackserve.find_tracks(hits, "localhost:8001")   # a server answers
tracks = trackserve.open_pipeline().find_tracks(hits)     # this process does

Nothing is imported before it is used: ``import trackserve`` loads no package but Python's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trackserve.client import AsyncClient, Client, find_tracks
    from trackserve.data import read_events
    from trackserve.engines.registry import open_pipeline
    from trackserve.event import Hits, Tracks

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "find_tracks": "client",
    "Hits": "event",
    "Tracks": "event",
    "open_pipeline": "engines.registry",
    "read_events": "data",
}

__all__ = ["AsyncClient", "Client", "Hits", "Tracks", "find_tracks", "open_pipeline", "read_events"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'trackserve' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"trackserve.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
