"""What the GPU engine does on a device: same tracks, physics, speed by stage, memory, events a second.

    make gpu [DEVICE=cuda:0] [EVENTS=DIR]

``--device cpu`` with TRITON_INTERPRET=1 shows that the program works; its numbers mean nothing and have
to go into a file of their own.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from studies.clock import spread
from studies.gpu.model import CARDS, RESULT, counts_of, predict
from studies.record import RESULTS, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.data import find_events
from trackserve.engines.gpu.device import named
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.evaluate.report import Evaluation, evaluate_event
from trackserve.pipeline.features import hit_features
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.event import Event, Float32

MEASURED = RESULTS / "gpu.json"
IN_FLIGHT = (1, 2, 4, 8, 16)
FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


@dataclass(frozen=True)
class Plan:
    """What is measured: where, on which events, how often, with which numbers in flight."""

    device: str
    events: Sequence[Event]
    repetitions: int = 30
    in_flight: tuple[int, ...] = IN_FLIGHT

    @property
    def on_device(self) -> bool:
        """Whether that is a GPU, not Triton's interpreter."""
        return self.device != "cpu"


def conformance(bundle: Bundle, plan: Plan, features: Sequence[Float32]) -> dict[str, Any]:
    """Compare the labels in float32 with the reference's, hit by hit."""
    ours = open_pipeline(bundle, engine="gpu", device=plan.device, precision="float32")
    reference = open_pipeline(bundle, engine="reference")
    rows = []
    for event in tqdm(features, desc="conformance", unit="event"):
        found, expected = (p.find_tracks_from_features(event).labels for p in (ours, reference))
        rows.append({"hits": len(event), "labels_that_differ": int((found != expected).sum())})
    return {"events": rows, "equal": all(not row["labels_that_differ"] for row in rows)}


def physics(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Judge each precision on events with truth."""
    judged = {}
    for precision in ("float32", "bfloat16"):
        pipeline = open_pipeline(bundle, engine="gpu", device=plan.device, precision=precision)
        each: list[Evaluation] = [
            evaluate_event(event, pipeline.find_tracks(event.hits))
            for event in tqdm(plan.events, desc=precision, unit="event")
        ]
        judged[precision] = reduce(add, each).to_json()
    return {"events": len(plan.events), "precisions": judged}


def stages(bundle: Bundle, plan: Plan, features: Float32) -> dict[str, Any]:
    """Return milliseconds by stage and of the whole, beside the prediction; and the memory."""
    pipeline = open_pipeline(bundle, engine="gpu", device=plan.device)
    pipeline.find_tracks_from_features(features)  # compiles
    if plan.on_device:
        torch.cuda.reset_peak_memory_stats(plan.device)
    seconds: dict[str, list[float]] = {}
    for _ in tqdm(range(plan.repetitions), desc="stages", unit="event"):
        start = time.perf_counter()
        (found,) = pipeline.run_events([features], LABELS_ONLY)
        seconds.setdefault("whole", []).append(time.perf_counter() - start)
        for stage, took in found.timings.seconds.items():
            seconds.setdefault(stage, []).append(took)
    peak = torch.cuda.max_memory_allocated(plan.device) if plan.on_device else None
    wedges = json.loads(RESULT.read_text(encoding="utf-8"))["wedges"]
    counts = counts_of(wedges, bundle, features)
    return {
        "hits": len(features),
        "ms": {stage: spread([1000 * s for s in each]) for stage, each in seconds.items()},
        "predicted": {name: predict(counts, card) for name, card in CARDS.items()},
        "peak_bytes": peak,
    }


def in_process(bundle: Bundle, plan: Plan, features: Sequence[Float32]) -> dict[str, float]:
    """Return events a second with 1 to 16 in flight, each on a pipeline (a stream) of its own."""
    pipelines = [
        open_pipeline(bundle, engine="gpu", device=plan.device) for _ in range(max(plan.in_flight))
    ]
    work = [features[i % len(features)] for i in range(plan.repetitions)]
    for pipeline in pipelines:
        pipeline.find_tracks_from_features(work[0])

    def rate(count: int) -> float:
        def share(number: int) -> None:
            for event in work[number::count]:
                pipelines[number].find_tracks_from_features(event)

        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(share, range(count)))
        return len(work) / (time.perf_counter() - start)

    return {str(count): rate(count) for count in plan.in_flight}


def served(bundle: Bundle, plan: Plan) -> dict[str, float]:
    """Return events a second through a server, with 1 to 16 requests in flight."""
    rates = {}
    for count in plan.in_flight:
        settings = Settings(
            engine="gpu",
            device=plan.device,
            instances={"pipeline": count},
            batch=8,
            budget={} if plan.on_device else {"seconds": 1e6},
        )
        with serve(bundle, settings, **FREE_PORTS) as server:
            rates[str(count)] = _rate(server.grpc_url, plan, count)
    return rates


def _rate(url: str, plan: Plan, count: int) -> float:
    work = [plan.events[i % len(plan.events)].hits for i in range(plan.repetitions)]

    def send(number: int) -> None:
        with Client(url) as client:
            for hits in work[number::count]:
                client.find_tracks(hits)

    with Client(url) as client:
        client.find_tracks(work[0])
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(send, range(count)))
    return len(work) / (time.perf_counter() - start)


def run(path: Path, plan: Plan, bundle_path: Path | None = None) -> dict[str, Any]:
    """Measure everything and write it.

    Raises :class:`InputError` where what the interpreter took would be written as a GPU's.
    """
    if not plan.on_device and path.resolve() == MEASURED.resolve():
        message = "Triton's interpreter is no GPU; write what it took into another file (--json)"
        raise InputError(message)
    bundle = read_bundle(bundle_path)
    if not plan.on_device:
        bundle = bundle.with_budget({"seconds": 1e6})
    features = [hit_features(event.hits, bundle.features) for event in plan.events]
    sections: dict[str, Callable[[], Any]] = {
        "conformance": lambda: conformance(bundle, plan, features),
        "physics": lambda: physics(bundle, plan),
        "stages": lambda: stages(bundle, plan, features[0]),
        "in_process": lambda: in_process(bundle, plan, features),
        "served": lambda: served(bundle, plan),
    }
    record = {
        "device": named(),
        "installation": installation(),
        "bundle": {"name": bundle.name, "digest": bundle.digest()},
        "repetitions": plan.repetitions,
        **{name: section() for name, section in sections.items()},
    }
    write_json(path, record)
    return record


def read_events(folder: Path, most: int, wedge: float | None) -> list[Event]:
    """Return the first events of a folder with their truth; only a wedge (rad) in azimuth if given."""
    events = [source.read() for source in find_events(folder)[:most]]
    if wedge is None:
        return events
    return [_wedge(event, wedge) for event in events]


def _wedge(event: Event, half: float) -> Event:
    rows = np.abs(np.arctan2(event.hits.y, event.hits.x)) < half
    truth = None if event.truth is None else event.truth.select(rows)
    return replace(event, hits=event.hits.select(rows), truth=truth)
