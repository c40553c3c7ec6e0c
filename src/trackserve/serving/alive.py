"""Whether a server still answers events: it may be ready while the process of a model is dead or stuck.

Triton 2.51 calls a model ready whose process is gone or hangs. So an event without hits is sent, behind the
guard. One that waits for its turn behind others is no failure as long as these are answered.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

from trackserve.contract import metrics
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.errors import ServerError
from trackserve.serving.guard.metrics import server_metrics
from trackserve.serving.sockets import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.serving.server import Server

ANSWER_SECONDS = 8.0
"""How long an event without hits may take while no other is answered; Kubernetes' probe waits longer."""


def aliveness(
    server: Server, columns: int, *, seconds: float = ANSWER_SECONDS
) -> Callable[[], str]:
    """Return what asks a server for the tracks of an event of ``columns`` columns and no hits.

    That returns a sentence, and raises :class:`ServerError` if nothing is answered within ``seconds``.
    """
    (tensor,) = TRACK_FINDING.inputs
    given = {"name": tensor.name, "datatype": tensor.dtype, "shape": [0, columns], "data": []}
    body = json.dumps({"id": "alive", "inputs": [given]})

    def look() -> str:
        if server.failure:
            raise ServerError(server.failure)
        before, began = _done(server), time.monotonic()
        try:
            path = f"/v2/models/{TRACK_FINDING.name}/infer"
            status, text = ask(server.sockets["http"], "POST", path, body, timeout=seconds)
        except OSError as error:
            if isinstance(error, TimeoutError) and _done(server) > before:
                return "busy: other events were answered meanwhile\n"
            message = f"an event without hits wasn't answered within {seconds:g} s: {error}"
            raise ServerError(message) from None
        # A full queue refuses, and is well.
        if status not in {http.client.OK, http.client.SERVICE_UNAVAILABLE} or "Stub" in text:
            message = f"an event without hits got {status}: {text}"
            raise ServerError(message)
        took = 1000 * (time.monotonic() - began)
        return f"alive: an event without hits was answered in {took:.1f} ms\n"

    return look


def _done(server: Server) -> float:
    """Return how many requests the models have ended, by their counters."""
    lines = server_metrics(server.sockets["metrics"]).splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith(metrics.REQUESTS.name)
    )
