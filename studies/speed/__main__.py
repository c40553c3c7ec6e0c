"""The speed of the native engine, and of the classical chain beside it: every number of docs/speed.md.

    python -m studies.speed --events DIR --growth DIR ... --small DIR [--bundle DIR] [--quick]

Times are seconds of the processor unless they say wall. What is compared alternates within one run,
so that a busy machine slows both. Every section of the result states its number of repetitions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from studies.clock import exponent, medians, spread, stage_seconds
from studies.physics.ckf import CONFIGURATIONS, KalmanFilter
from studies.record import RESULTS, ROOT, installation, write_json
from studies.speed import neighbour_search
from studies.speed.compiled import run as compiled
from studies.speed.floor import BYTES, floor
from studies.speed.tables import SPEED
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.native import NativePipeline
from trackserve.engines.registry import open_pipeline
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.bundle import Bundle
    from trackserve.data import EventSource
    from trackserve.event import Float32, Hits

RESULT = RESULTS / "speed.json"
CHAIN = "fast"
"""The configuration of the classical chain that is the peer."""
SMALL_EVENT = 1321
"""Hits of a small event: the mean of the published Exa.TrkX clients' events."""


def precisions(pipeline: NativePipeline) -> list[str]:
    """Return the bundle's own precision and then the others that the engine computes it in here."""
    others = sorted(set(pipeline.library.precisions()) - {pipeline.precision})
    as_asked = [p for p in others if not NativePipeline(pipeline.bundle, precision=p).notes]
    return [pipeline.precision, *as_asked]


def whole(bundle: Bundle, sources: Sequence[EventSource]) -> dict[str, Any]:
    """Compare the whole pipeline, hits to labels, with the classical chain, event by event."""
    first = NativePipeline(bundle)
    pipelines = {p: open_pipeline(bundle, engine="native", precision=p) for p in precisions(first)}
    chain = KalmanFilter(CONFIGURATIONS[CHAIN])
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in (*pipelines, "chain")}
    hits = []
    for number, source in enumerate(tqdm([sources[0], *sources], desc="whole", unit="event")):
        event = source.read(truth=False, cells=True)
        found = {name: stage_seconds(p, event.hits)[1] for name, p in pipelines.items()}
        steps = chain.find_tracks(event.hits)[1]
        found["chain"] = {**steps, "total": sum(steps.values())}
        if number:  # the first one warms up
            hits.append(len(event.hits))
            for name, seconds in found.items():
                stages[name].append(seconds)
    own = first.precision
    total = {name: spread([s["total"] for s in each]) for name, each in stages.items()}
    ratios = [
        ours["total"] / theirs["total"]
        for ours, theirs in zip(stages[own], stages["chain"], strict=True)
    ]
    middle = medians(stages[own])
    return {
        "events": len(sources),
        "hits": spread(hits),
        "precision": own,
        "seconds": total,
        "stages": {name: medians(each) for name, each in stages.items()},
        "ratio": total[own]["median"] / total["chain"]["median"],
        "ratio_of_each_event": spread(ratios),
        "share_of_track_building": middle["tracks"] / middle["total"],
        "chain": CHAIN,
    }


def small(bundle: Bundle, source: EventSource, crowded: Hits, repetitions: int) -> dict[str, Any]:
    """Return milliseconds of a small event: of a quiet one, and a wedge of a crowded one."""
    found = {}
    pipeline = open_pipeline(bundle, engine="native")
    quiet = source.read_columns(bundle.features.wire_columns, truth=False).hits
    for name, hits in (("quiet", quiet), ("crowded", crowded)):
        chosen = wedge(hits, SMALL_EVENT)
        seconds = []
        for _ in tqdm(range(repetitions), desc=f"small, {name}", unit="event"):
            start = time.process_time()
            pipeline.find_tracks(chosen)
            seconds.append(time.process_time() - start)
        in_ms = spread([1000 * s for s in seconds[repetitions // 10 :]])
        found[name] = {"hits": len(chosen), "hits_of_event": len(hits), "ms": in_ms}
    return found


def wedge(hits: Hits, count: int) -> Hits:
    """Return the hits of a wedge in azimuth that holds this many, or all if there are fewer."""
    return hits.select(np.sort(np.argsort(np.arctan2(hits.y, hits.x), kind="stable")[:count]))


def threads(bundle: Bundle, hits: Hits, repetitions: int) -> dict[str, Any]:
    """Compare one thread with two by the wall's clock, labels too."""
    pipelines = {n: open_pipeline(bundle, engine="native", threads=n) for n in (1, 2)}
    wall: dict[int, list[float]] = {n: [] for n in pipelines}
    labels = [pipeline.find_tracks(hits).labels for pipeline in pipelines.values()]
    assert np.array_equal(*labels), "two threads find other tracks than one"
    for _ in tqdm(range(repetitions), desc="threads", unit="event"):
        for n, pipeline in pipelines.items():
            start = time.perf_counter()
            pipeline.find_tracks(hits)
            wall[n].append(time.perf_counter() - start)
    middle = {str(n): spread(seconds) for n, seconds in wall.items()}
    return {"wall_seconds": middle, "speedup": middle["1"]["median"] / middle["2"]["median"]}


def work(bundle: Bundle, features: Float32, events: int, workers: int = 1) -> list[dict[str, Any]]:
    """Let one-thread workers, each its own process, find an event's tracks ``events`` times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, features)
        program = [sys.executable, "-m", "studies.speed.worker", str(bundle.path)]
        command = [*program, str(path), NativePipeline(bundle).precision, str(events)]
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            for _ in range(workers)
        ]
        for worker in started:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n", "a worker did not start"
        for worker in started:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.communicate()[0]) for worker in started]


def side_by_side(bundle: Bundle, features: Float32, events: int) -> dict[str, Any]:
    """Compare two one-thread workers at once with one alone."""
    (alone,) = work(bundle, features, events)
    both = work(bundle, features, events, workers=2)
    mean = float(np.mean([w["wall"] for w in both]))
    return {
        "events_of_each": events,
        "wall_seconds": {"alone": alone["wall"], "side by side": mean},
        "throughput": 2 * alone["wall"] / mean,
        "peak_bytes": alone["peak_bytes"],
    }


def growth(bundle: Bundle, folders: Sequence[Path], repetitions: int) -> dict[str, Any]:
    """Return time and memory against the number of hits, and the powers with which they grow."""
    rows = []
    for folder in tqdm(folders, desc="growth", unit="pileup"):
        event = find_events(folder)[0].read_columns(bundle.features.wire_columns, truth=False)
        (worker,) = work(bundle, hit_features(event.hits, bundle.features), repetitions)
        needed = worker["peak_bytes"] - worker["ready_bytes"]
        rows.append(
            {"events": folder.name, "hits": len(event.hits), "needed_bytes": needed, **worker}
        )
    rows.sort(key=lambda row: row["hits"])
    hits = [row["hits"] for row in rows]
    return {
        "repetitions": repetitions,
        "rows": rows,
        "exponent_of_time": exponent(hits, [row["processor"] for row in rows]),
        "exponent_of_memory": exponent(hits, [row["needed_bytes"] for row in rows]),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every section, or those that are asked for and take the others as written."""
    bundle = read_bundle(options.bundle)
    quick = options.quick
    sources = find_events(options.events)[: 1 if quick else options.most]
    hits = sources[0].read_columns(bundle.features.wire_columns, truth=False).hits
    features = hit_features(hits, bundle.features)
    pipeline = NativePipeline(bundle)
    embedding = pipeline.run(features).embedding
    sections: dict[str, Callable[[], Any]] = {
        "whole": lambda: whole(bundle, sources),
        "small": lambda: small(bundle, find_events(options.small)[0], hits, 20 if quick else 300),
        "threads": lambda: threads(bundle, hits, 1 if quick else 15),
        "side by side": lambda: side_by_side(bundle, features, 1 if quick else 10),
        "growth": lambda: growth(bundle, options.growth, 1 if quick else 5),
        "stage": lambda: neighbour_search.stage(pipeline, hits, 1),
        "search": lambda: neighbour_search.compare(embedding, bundle.radius, 1 if quick else 5),
        "sweeps": lambda: neighbour_search.sweeps(embedding, bundle.radius, quick=quick),
        "layers": lambda: compiled("layers.cpp"),
    }
    written: dict[str, Any] = json.loads(options.json.read_text()) if options.only else {}
    about = {"name": bundle.name, "digest": bundle.digest(), "radius": bundle.radius}
    assert written.get("bundle", about) == about, "what is written is of another bundle"
    result = {
        "installation": installation(),
        "bundle": about,
        **{
            name: written[name] if options.only and name not in options.only else section()
            for name, section in sections.items()
        },
    }
    each = {p: NativePipeline(bundle, precision=p) for p in precisions(pipeline) if p in BYTES}
    result["floor"] = floor(each, features, result["whole"]["stages"])
    return {
        "ratio_to_ckf": result["whole"]["ratio"],
        "seconds_per_event": result["whole"]["seconds"][result["whole"]["precision"]]["median"],
        "neighbours_speedup": result["search"]["speedup"],
        "small_event_ms": result["small"]["quiet"]["ms"]["median"],
        "two_threads_speedup": result["threads"]["speedup"],
        "track_building_share": result["whole"]["share_of_track_building"],
        "worker_peak_bytes": result["side by side"]["peak_bytes"],
        **result,
    }


def main() -> None:
    """Parse the command line, measure, write and print."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--events", type=Path, required=True, help="pileup-200 events")
    parser.add_argument("--most", type=int, default=10, help="of these, how many are looked at")
    parser.add_argument("--growth", type=Path, nargs="+", required=True, help="a folder a pileup")
    parser.add_argument("--small", type=Path, required=True, help="events without pileup")
    parser.add_argument("--bundle", type=Path, help="folder (default: the shipped bundle)")
    parser.add_argument("--json", type=Path, default=RESULT, help="file for every number")
    parser.add_argument(
        "--only", nargs="+", metavar="SECTION", help="measure these again, keep the others"
    )
    parser.add_argument("--quick", action="store_true", help="once each: to see that all runs")
    options = parser.parse_args()
    result = measure(options)
    write_json(options.json, result)
    for made in SPEED.values():
        print(made(result), end="\n\n")


if __name__ == "__main__":
    main()
