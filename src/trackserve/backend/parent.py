"""End a model's process with the server that started it."""

from __future__ import annotations

import os
import threading
import time

EVERY = 1.0
"""Seconds between two looks."""


def end_with_parent() -> None:
    """End this process soon after its parent has ended, whatever its other threads wait for.

    Triton's process of a model looks after its server by itself, but waits forever for a lock in
    shared memory that the server held when it was killed.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
