"""What `trackserve plan` simulates beside what servers measure, for the very same arrivals."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.client import Client
from trackserve.load import plan
from trackserve.load.load import Load, drive, mix
from trackserve.load.worker import RequestStatus
from trackserve.serving.fleet import Fleet
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trackserve.bundle import Bundle
    from trackserve.event import Hits
    from trackserve.load.load import Events

SERVERS = (1, 2)
LOADS = (0.5, 0.8, 0.95)
SHARES = (0.5, 0.95, 0.99)
QUEUE = 64
DRAWS = 20
"""Simulations with other service times drawn; their mean is compared."""


def compare(bundle: Bundle, hits: Sequence[Hits], seconds: float) -> dict[str, Any]:
    """Load one and two servers of one core each, and simulate the same arrivals."""
    rows = []
    one = {"pipeline": 1}
    settings = Settings(instances=one, threads=one, max_queue=QUEUE)
    for servers in SERVERS:
        with (
            tempfile.TemporaryDirectory() as folder,
            Fleet(bundle, settings, servers=servers, folder=Path(folder), port=0) as fleet,
        ):
            with Client(fleet.address) as client:
                events = mix(client, [("events", hits)])
            service = service_times(fleet.address, events, servers, seconds / 3)
            for share in LOADS:
                load = Load(rate=share * servers / float(service.mean()), seconds=seconds)
                measured = drive(fleet.address, events, load).measured
                row = {"servers": servers, "load": share, "rate": load.rate}
                rows.append(
                    {**row, "service": float(service.mean()), **beside(measured, servers, service)}
                )
    return {"rows": rows}


def service_times(url: str, events: Events, servers: int, seconds: float) -> NDArray[np.float64]:
    """Return what a request takes (s) that never waits: one in flight for each server."""
    rows = drive(url, events, Load(concurrency=servers, seconds=seconds)).measured
    return np.asarray(rows["done"] - rows["sent"])


def beside(rows: NDArray[Any], servers: int, service: NDArray[np.float64]) -> dict[str, Any]:
    """Return measured and simulated quantiles of the latency (s), and the shares that were refused."""
    answered = rows["outcome"] == RequestStatus.ANSWERED
    latency = (rows["done"] - rows["arrival"])[answered]
    rng, fleet = np.random.default_rng(1), plan.Fleet(servers, 1, QUEUE)
    arrival = rows["arrival"] - rows["arrival"][0]
    drawn = [plan.simulate(fleet, arrival, rng.choice(service, len(arrival))) for _ in range(DRAWS)]
    return {
        "requests": len(rows),
        "measured": [float(q) for q in np.quantile(latency, SHARES)],
        "planned": [float(np.mean([one.quantile(s) for one in drawn])) for s in SHARES],
        "refused": 1 - float(answered.mean()),
        "refused planned": float(np.mean([one.refused for one in drawn])),
    }
