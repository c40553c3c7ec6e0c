"""One worker of a farm: a process that holds a bundle and finds the tracks of an event again and again.

    python -m studies.speed.worker BUNDLE FEATURES.npy PRECISION EVENTS

It says ``ready``, waits for a line, and prints as JSON its resident memory (bytes) when ready and at
its peak, and the seconds that an event took by the wall's clock and the processor's (medians).
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from trackserve.engines.registry import open_pipeline


def resident(which: str) -> int:
    """Return this process's memory in bytes: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{which}:\s*(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def main(bundle: str, features: str, precision: str, events: str) -> None:
    """Work through the events."""
    pipeline = open_pipeline(bundle, engine="native", precision=precision)
    hits = np.load(features)
    pipeline.find_tracks_from_features(hits[:1000])
    ready = resident("VmRSS")
    print("ready", flush=True)
    sys.stdin.readline()
    wall, processor = [], []
    for _ in range(int(events)):
        started = time.perf_counter(), time.process_time()
        pipeline.find_tracks_from_features(hits)
        wall.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    print(
        json.dumps(
            {
                "ready_bytes": ready,
                "peak_bytes": resident("VmHWM"),
                "wall": float(np.median(wall)),
                "processor": float(np.median(processor)),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
