"""What a client spends on an event: processor and wall time, by who finds its tracks.

    python -m studies.client [--events FOLDER] [--rounds 5] [--cpp BUILD] [--out FILE]

Without ``--events`` it takes the shipped pileup-200 event. Ways to find its tracks take turns, so that a
busy machine slows all of them: ACTS' triplet seeding and Kalman filter in the client (the faster
configuration of docs/physics.md, without handing the hits over), the pipeline in the client, the Python client over
gRPC and HTTP, and the C++ client if ``--cpp`` names where it was built (with TRACKSERVE_CLIENT_TESTS=ON). Processor
time is that of the client's process with all its threads; servers are processes of their own, on this
machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.client.encodings import positions
from studies.clock import spread
from studies.physics.ckf import CONFIGURATIONS, KalmanFilter
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.contract.compact import STEP
from trackserve.data import find_events
from trackserve.engines.registry import fastest, open_pipeline
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.engines.base import Pipeline
    from trackserve.event import Event, Hits

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
REQUESTS = 5
"""How many events the C++ client asks for in one go."""


def processor_time(
    events: list[Event], rounds: int, pipeline: Pipeline, cpp: Path | None
) -> dict[str, Any]:
    """Return processor and wall seconds of the client for an event, by who finds its tracks."""
    kalman = KalmanFilter(CONFIGURATIONS["fast"])
    measured: dict[str, list[tuple[float, float]]] = {}
    settings = Settings(engine=fastest())
    with (
        serve(read_bundle(), settings, **FREE_PORTS) as server,
        Client(server.grpc_url) as grpc,
        Client(server.http_url) as http,
        Client(server.grpc_url, compact=STEP) as compact_grpc,
        Client(server.http_url, compact=STEP) as compact_http,
    ):
        ways: dict[str, Callable[[Hits], object]] = {
            "pipeline in the client": pipeline.find_tracks,
            "Python client, gRPC": grpc.find_tracks,
            "Python client, HTTP": http.find_tracks,
            "Python client, gRPC, compact": compact_grpc.find_tracks,
            "Python client, HTTP, compact": compact_http.find_tracks,
        }
        for event in (events[number % len(events)] for number in range(rounds + 1)):
            for name, find in ways.items():
                start, wall = time.process_time(), time.perf_counter()
                find(event.hits)
                spent = time.process_time() - start, time.perf_counter() - wall
                measured.setdefault(name, []).append(spent)
            start = time.perf_counter()
            _, seconds = kalman.find_tracks(event.hits)
            total = sum(seconds.values())
            measured.setdefault("seeding and CKF in the client", []).append((total, total))
            if cpp is not None:
                measured.setdefault("C++ client, gRPC", []).append(
                    _ask_cpp(cpp, server.grpc_url, event.hits)
                )
    return {
        name: {
            "processor": spread([spent for spent, _ in values[1:]]),  # the first warms up
            "wall": spread([wall for _, wall in values[1:]]),
        }
        for name, values in measured.items()
    }


def _ask_cpp(build: Path, url: str, hits: Hits) -> tuple[float, float]:
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        positions(hits).tofile(file)
        file.flush()
        command = [str(build / "ask_many"), url, str(REQUESTS), "1", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stderr.splitlines()[-1])
    return found["processor"] / REQUESTS, found["wall"] / REQUESTS


def show(record: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{record['events']} events, {record['hits']:.0f} hits each")
    for name, row in record["processor_time"].items():
        spent, wall = row["processor"]["median"], row["wall"]["median"]
        print(f"{name:32}{1e3 * spent:10.1f} ms of processor{1e3 * wall:10.1f} ms")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, default=ROOT / "examples/events/pu200")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpp", type=Path, help="where clients/cpp was built with its tests")
    parser.add_argument("--out", type=Path, default=RESULTS / "client.json")
    options = parser.parse_args()
    events = [source.read() for source in find_events(options.events)]
    pipeline = open_pipeline()
    record = {
        "installation": installation(),
        "events": len(events),
        "hits": float(np.mean([len(event.hits) for event in events])),
        "rounds": options.rounds,
        "processor_time": processor_time(events, options.rounds, pipeline, options.cpp),
    }
    write_json(options.out, record)
    show(record)


if __name__ == "__main__":
    main()
