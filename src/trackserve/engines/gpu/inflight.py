"""Events in flight on a device: beside each other while its memory suffices, alone where it doesn't."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class InFlight:
    """Counts the events that this process runs on a device; any thread may ask it."""

    _of_device: ClassVar[defaultdict[str, InFlight]]

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._count = 0
        self._waiting_alone = 0

    @property
    def waiting(self) -> int:
        """How many events run alone or wait to."""
        return self._waiting_alone

    @classmethod
    def on(cls, device: str) -> InFlight:
        """Return the one of a device, which all pipelines on it share."""
        return cls._of_device[device]

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Run an event as soon as none runs alone, or waits to."""
        with self._change:
            self._change.wait_for(lambda: not self._waiting_alone)
            self._count += 1
        try:
            yield
        finally:
            with self._change:
                self._count -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run an event once no other is in flight, and let none begin before it has ended."""
        with self._change:
            self._waiting_alone += 1
            self._change.wait_for(lambda: not self._count)
            self._count += 1
        try:
            yield
        finally:
            with self._change:
                self._count -= 1
                self._waiting_alone -= 1
                self._change.notify_all()


InFlight._of_device = defaultdict(InFlight)
