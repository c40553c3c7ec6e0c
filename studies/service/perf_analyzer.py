"""The field's load tool on the same server, beside ours."""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from studies.service.study import BUSY, FREE_PORTS
from trackserve.load.load import Load
from trackserve.load.report import measure
from trackserve.serving.service import serve

if TYPE_CHECKING:
    from studies.service.study import Study
    from trackserve.event import Float32

WINDOWS = 3
"""perf_analyzer's result is the mean of this number of windows."""


def against_perf_analyzer(study: Study) -> dict[str, Any]:
    """Measure throughput and p95 with perf_analyzer and with `trackserve bench`, in turn."""
    if study.perf_analyzer is None:
        return {"skipped": "no --perf-analyzer was given"}
    found: dict[str, Any] = {}
    with serve(study.bundle, study.settings, **FREE_PORTS) as server:
        for kind in ("small", "pu20"):
            events = study.events(server.grpc_url, kind)
            for concurrency in (1, BUSY):
                seconds, repeats = study.seconds(6.0), study.repeats(8)
                theirs, ours = [], []
                for pair in tqdm(range(repeats), desc=f"perf_analyzer {kind} {concurrency}"):
                    for tool in ("perf_analyzer", "bench")[:: 1 if pair % 2 else -1]:
                        if tool == "bench":
                            load = Load(concurrency, seconds=seconds)
                            report = measure(server.grpc_url, events, load)
                            ours.append((report.throughput, 1000 * report.latency.p95))
                            continue
                        address = server.grpc_url.removeprefix("grpc://")
                        theirs.append(
                            _run(study.perf_analyzer, address, events.tables, concurrency, seconds)
                        )
                rate, p95 = np.median(np.divide(ours, theirs), axis=0)
                found[f"{kind}, {concurrency} at once"] = {
                    "perf_analyzer": theirs,
                    "trackserve bench": ours,
                    "throughput_ratio": float(rate),
                    "p95_ratio": float(p95),
                }
    return found


def _run(
    program: Path, address: str, tables: list[Float32], concurrency: int, seconds: float
) -> tuple[float, float]:
    """Return events a second and p95 (ms)."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder, "data.json"), Path(folder, "result.csv")
        events = [
            {"HITS": {"content": table.ravel().tolist(), "shape": list(table.shape)}}
            for table in tables
        ]
        data.write_text(json.dumps({"data": events}))
        command = [str(program), "-m", "track_finding", "-u", address, "-i", "grpc", "-f", result]
        command += ["--input-data", data, "--concurrency-range", concurrency, "--async"]
        command += ["-p", round(1000 * seconds / WINDOWS), "-s", 999, "--max-threads", 1]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False
        )
        if done.returncode or not result.exists():
            message = f"perf_analyzer failed: {done.stdout[-2000:]} {done.stderr[-2000:]}"
            raise RuntimeError(message)
        (row,) = csv.DictReader(result.open())
        return float(row["Inferences/Second"]), float(row["p95 latency"]) / 1000
