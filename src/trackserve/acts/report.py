"""What became of the events of a job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock


@dataclass
class Report:
    """Counts over the events of a job; for use by several threads.

    ``skipped`` events had no answer and were left out, ``fell_back`` ones were found in this process
    instead. ``empty`` counts the events without tracks by the stage at which the last edge was cut.
    ``measurements`` is counted where the algorithm knows them. ``waited`` (s) is the wall time and
    ``spent`` (s) the processor time that this process took for all events, from space points to seeds.
    """

    events: int = 0
    measurements: int = 0
    hits: int = 0
    tracks: int = 0
    skipped: int = 0
    fell_back: int = 0
    failed: int = 0
    waited: float = 0.0
    spent: float = 0.0
    empty: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, **counts: float) -> None:
        """Add to the counts of these names."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def add_empty(self, stage: str) -> None:
        """Count an event without tracks whose last edge was cut at this stage."""
        with self._lock:
            self.empty[stage] += 1

    def add_failure(self, kind: str, reason: str) -> None:
        """Count an event that finally failed as ``skipped``, ``fell_back`` or ``failed``."""
        with self._lock:
            setattr(self, kind, getattr(self, kind) + 1)
            self.last_failure = reason

    def __str__(self) -> str:
        """Return the counts in a few lines, one thing a line."""
        events = max(self.events, 1)
        lines = [f"{self.events} events, {self.hits} hits, {self.tracks} tracks"]
        if self.measurements:
            without = self.measurements - self.hits
            lines.append(f"{self.measurements} measurements, {without} more than space points")
        lines.append(
            f"{1e3 * self.waited / events:.1f} ms waited and {1e3 * self.spent / events:.1f} ms of "
            "processor time an event"
        )
        lines += [
            f"{getattr(self, name)} {name.replace('_', ' ')}; the last: {self.last_failure}"
            for name in ("failed", "skipped", "fell_back")
            if getattr(self, name)
        ]
        lines += [f"{count} without tracks: {stage}" for stage, count in self.empty.items()]
        return "\n".join(lines)
