"""What became of each request: a count in the metrics, and a line in the server's log."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trackserve.contract import metrics

if TYPE_CHECKING:
    from trackserve.backend.counters import Counters
    from trackserve.backend.workers import Outcome

FAILURES = {"unusable", "over_budget", "failed"}
"""The outcomes that are logged unless nothing is."""


class RequestLog:
    """Counts the requests of a model, and writes lines of JSON for those that are wanted.

    ``wanted`` is ``none``, ``failures`` or ``all``.
    """

    def __init__(self, model: str, wanted: str, counters: Counters) -> None:
        self._model = model
        self._wanted = wanted
        self._counters = counters

    def record(self, request_id: str, outcome: Outcome, **numbers: float) -> None:
        """Count a request, and write its line if it is wanted."""
        self._counters.add(metrics.REQUESTS, 1, self._model, outcome.kind)
        if self._wanted == "none" or (self._wanted == "failures" and outcome.kind not in FAILURES):
            return
        line = {
            "time": datetime.now(UTC).isoformat(),
            "event": "request",
            "request_id": request_id,
            "model": self._model,
            "outcome": outcome.kind,
            **({"reason": outcome.reason} if outcome.reason else {}),
            **numbers,
        }
        with contextlib.suppress(OSError):  # a full disk costs the line, not the answer
            sys.stderr.write(f"{json.dumps(line)}\n")
            sys.stderr.flush()
