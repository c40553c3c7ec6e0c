"""A client process of its own: what it spends on an event, without whatever else its caller does.

    python -m studies.client.ask URL EVENT.npy REQUESTS [STEP]

Asks one after the other, after one that isn't counted, and prints JSON: processor and wall seconds of each
request. EVENT.npy has x, y, z ``[N, 3]``; with STEP (mm) hits and labels are compact.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from trackserve.client import Client
from trackserve.event import Hits


def main(url: str, event: str, requests: int, step: float | None) -> list[dict[str, float]]:
    """Return the processor and wall seconds of each request."""
    hits, spent = Hits.from_positions(np.load(event)), []
    with Client(url, compact=step, timeout=300.0) as client:
        client.find_tracks(hits)
        for _ in range(requests):
            processor, wall = time.process_time(), time.perf_counter()
            client.find_tracks(hits)
            spent.append(
                {
                    "processor": time.process_time() - processor,
                    "wall": time.perf_counter() - wall,
                }
            )
    return spent


if __name__ == "__main__":
    url, event, requests, *step = sys.argv[1:]
    print(json.dumps(main(url, event, int(requests), float(step[0]) if step else None)))
