"""Stopping without losing a request: the launcher writes a file, the models answer what they have."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.contract.draining import FRONTS, STOP

if TYPE_CHECKING:
    from trackserve.backend.queue import Queue

WATCH_SECONDS = 0.05


def watch_for_stop(model: str, queue: Queue) -> None:
    """Announce a model to the launcher, if one started this server, and watch for its order to stop."""
    if folder := os.environ.get(FRONTS):
        serving = Path(folder, model)
        serving.touch()
        threading.Thread(target=_watch, args=(serving, queue), daemon=True).start()


def _watch(serving: Path, queue: Queue) -> None:
    """Refuse new requests once the server is to stop; remove the announcement when none is in flight."""
    order = serving.with_name(STOP)
    while not queue.stop(stopping=order.exists()):
        time.sleep(WATCH_SECONDS)
    serving.unlink(missing_ok=True)
