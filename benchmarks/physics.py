"""The physics of the shipped bundle, beside ACTS' Kalman filter on the very same events.

    python benchmarks/physics.py [--events FOLDER] [--data DIR] [--workers N] [--limit N] [--engines]

Judges the bundle on unseen events at pileup 200 and 20, on events of other conditions, with x, y, z
alone and on the reference engine, and the Kalman filter on the same. Events that are not in DIR are
simulated. Writes results/physics.json (ratios as fractions, each with its 68.3 % interval) and the
pictures of the documentation, and prints its tables; `python tests/docs/made.py` puts them there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ckf import CONFIGURATIONS
from judge import ROOT, BundleFinder, Job, Judged, KalmanFinder, judge
from physics_pictures import draw_plots, draw_shipped_event
from physics_tables import TABLES
from record import write_json

from trackserve.bundle import read_bundle
from trackserve.data.simulate import simulate
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.metrics import TARGET_SETS
from trackserve.evaluate.report import DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.evaluate.intervals import Ratio
    from trackserve.evaluate.report import Evaluation

RESULT = ROOT / "benchmarks/results/physics.json"
SEED, PILEUP = 3, 200


@dataclass(frozen=True)
class Sample:
    """Events to be simulated: how many, and in what they differ from the nominal ones."""

    name: str
    events: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = SEED

    def ready(self, folder: Path, workers: int) -> Path:
        """Simulate the events that are not in ``folder`` and return it."""
        settings = {"pileup": PILEUP, **self.settings}
        simulate(folder, events=self.events, seed=self.seed, workers=workers, **settings)
        return folder


MAIN = Sample("test200", 50)
PILEUP_20 = Sample("test20", 20, {"pileup": 20}, seed=13)
ELSEWHERE = {
    "pileup 0": Sample("pileup-0", 30, {"pileup": 0}),
    "pileup 50": Sample("pileup-50", 10, {"pileup": 50}),
    "pileup 100": Sample("pileup-100", 6, {"pileup": 100}),
    "pileup 300": Sample("pileup-300", 3, {"pileup": 300}),
    "no noise": Sample("no-noise", 3, {"noise": 0.0}),
    "30 % noise": Sample("noise-30-percent", 3, {"noise": 0.3}),
    "5 % dead modules": Sample("dead-modules-5-percent", 3, {"dead_modules": 0.05}),
    "field 2 % higher": Sample("field-2-percent-higher", 3, {"field_scale": 1.02}),
    "field 2 % lower": Sample("field-2-percent-lower", 3, {"field_scale": 0.98}),
    "beam spot moved by 1 mm": Sample(
        "beam-spot-moved-1-mm", 3, {"beam_spot_offset": (1.0, 0.0, 0.0)}
    ),
    "constant field": Sample("constant-field", 3, {"field": "constant"}),
    "smeared digitisation": Sample("smeared-digitisation", 3, {"digitisation": "smeared"}),
}
"""Conditions that nothing was trained on."""
FEW = 3
"""Events on which the bundle gets x, y, z alone."""
ENGINES = ("float32", "reference engine")
"""The jobs that compare both engines in full precision on the nominal events."""
TEN_BRANCHES_EVENTS = 1
"""An event with ten branches costs minutes."""


@dataclass(frozen=True)
class Plan:
    """Every job of the report; ``limit`` bounds the events of each for a first look."""

    main: Path
    pileup_20: Path
    elsewhere: Mapping[str, Path]
    bundle: Path | None
    limit: int | None = None

    def jobs(self) -> dict[str, Job]:
        """Return the jobs by name, the ones that matter most first."""
        ours = BundleFinder(self.bundle)
        few = min(FEW, self.limit or FEW)
        wanted = {
            "main": Job(ours, self.main, self.limit),
            "ckf fast": Job(KalmanFinder("fast"), self.main, self.limit),
            "ckf best": Job(KalmanFinder("best"), self.main, self.limit),
            "float32": Job(BundleFinder(self.bundle, precision="float32"), self.main, self.limit),
            "pileup 20": Job(ours, self.pileup_20, self.limit),
            "ckf pileup 20": Job(KalmanFinder("best"), self.pileup_20, self.limit),
        }
        for name, folder in self.elsewhere.items():
            wanted[name] = Job(ours, folder, self.limit)
            wanted[f"ckf {name}"] = Job(KalmanFinder("best"), folder, self.limit)
        return {
            **wanted,
            "positions only": Job(BundleFinder(self.bundle, positions_only=True), self.main, few),
            "reference engine": Job(BundleFinder(self.bundle, "reference"), self.main, self.limit),
            "ckf ten branches": Job(KalmanFinder("ten branches"), self.main, TEN_BRANCHES_EVENTS),
        }


def report(plan: Plan, judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Return everything that was measured, as nested dicts."""
    bundle = read_bundle(plan.bundle)
    main = judged["main"]
    return {
        "bundle": {
            "name": bundle.name,
            "digest": bundle.digest(),
            "engine": "native",
            "precision": bundle.precision,
            "columns": bundle.features.wire_columns,
        },
        "machine": _machine(),
        "sample": _sample(plan.main),
        **numbers(main, bins=True),
        "ckf": {
            **_kalman_filter("best", judged["ckf best"], bins=True),
            "fast": _kalman_filter("fast", judged["ckf fast"]),
            "ten_branches": _kalman_filter("ten branches", judged["ckf ten branches"]),
        },
        "pileup_20": {
            "sample": _sample(plan.pileup_20),
            **numbers(judged["pileup 20"]),
            "ckf": numbers(judged["ckf pileup 20"]),
        },
        "elsewhere": {
            name: {
                "sample": _sample(folder),
                **_compared(plan, folder, judged[name], main),
                "ckf": _compared(plan, folder, judged[f"ckf {name}"], judged["ckf best"]),
            }
            for name, folder in plan.elsewhere.items()
        },
        "positions_only": numbers(judged["positions only"]),
        "engines": engines(judged),
        "float32": numbers(judged["float32"]),
        "definitions": DEFINITIONS,
    }


def engines(judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Return what each engine finds in the same events."""
    native, reference = (numbers(judged[name]) for name in ENGINES)
    return {"native": native, "reference": reference}


def numbers(
    judged: Judged, chosen: Sequence[int] | None = None, *, bins: bool = False
) -> dict[str, Any]:
    """Return what was counted on all events, or on the ``chosen`` ones, every ratio as a number."""
    total = judged.together(chosen)
    rates = {**ratio("fake_rate", total.fakes), **ratio("duplicate_rate", total.duplicates)}
    targets = {}
    for each in TARGET_SETS:
        counts = total.targets[each.name]
        targets[each.name] = {
            "definition": each.definition,
            **ratio("efficiency", counts.efficiency),
            **ratio("single_majority", counts.single_majority),
            **ratio("perfect", counts.perfect),
            **rates,
            **ratio("target_duplicate_rate", counts.duplicates),
            "lost": dict(counts.losses),
            **({"bins": {n: b.to_json() for n, b in counts.bins.items()}} if bins else {}),
        }
    return {
        "events": total.events,
        "hits_per_event": total.hits / total.events,
        "tracks_per_event": total.fakes.total / total.events,
        **targets,
        "trackml_score": float(np.mean(total.scores)),
        "trackml_score_spread": total.score_spread,
        "stages": {
            name: {
                "edges_per_event": counts.edges / total.events,
                **ratio("efficiency", counts.efficiency),
                **ratio("purity", counts.purity),
                **ratio("target_purity", counts.target_purity),
            }
            for name, counts in total.stages.items()
        },
        "processor_seconds_per_event": judged.seconds_per_event(chosen),
    }


def ratio(name: str, counted: Ratio) -> dict[str, Any]:
    """Return a ratio as a fraction, its interval and its counts, under names that begin alike."""
    return {
        name: counted.value if counted.total else None,
        f"{name}_interval": [counted.low, counted.high],
        f"{name}_counts": [counted.passed, counted.total],
    }


def _kalman_filter(name: str, judged: Judged, *, bins: bool = False) -> dict[str, Any]:
    return {
        "configuration": {"pyacts": metadata.version("pyacts"), **asdict(CONFIGURATIONS[name])},
        **numbers(judged, bins=bins),
    }


def _compared(plan: Plan, folder: Path, judged: Judged, nominal: Judged) -> dict[str, Any]:
    """Return the numbers on other conditions and what is lost against the nominal ones.

    Events of the nominal seed and pileup have the same collisions as the nominal events of the same
    numbers, which are then what they are compared with.
    """
    keys = ("pileup", "seed")
    paired = [_sample(folder)[k] for k in keys] == [_sample(plan.main).get(k) for k in keys]
    chosen = [n for n in judged.events if n in nominal.events] if paired else []
    here, there = judged.together(), nominal.together(chosen)
    return {
        **numbers(judged),
        "compared_with_the_same_collisions": bool(chosen),
        "points_lost": {each.name: points_lost(here, there, each.name) for each in TARGET_SETS},
    }


def points_lost(here: Evaluation, there: Evaluation, targets: str) -> dict[str, float] | None:
    """Return the efficiency there less the one here, in points, and its statistical error.

    The error is that of two independent samples, which is too large for the same collisions. Without
    targets there is nothing to lose.
    """
    before, after = (each.targets[targets].efficiency for each in (there, here))
    if not (before.total and after.total):
        return None
    error = math.hypot(before.high - before.low, after.high - after.low) / 2
    return {"value": 100 * (before.value - after.value), "error": 100 * error}


def _sample(folder: Path) -> dict[str, Any]:
    """Return the settings that the events of a folder were made with, as far as it tells."""
    record = folder / "simulation.json"
    settings: dict[str, Any] = json.loads(record.read_text())["settings"] if record.exists() else {}
    return settings


def _machine() -> dict[str, Any]:
    packages = ("trackserve", "numpy", "pyacts", "pythia8mc", "onnxruntime")
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": (model or [platform.machine()])[0],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def main() -> None:
    """Parse the command line, judge, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, help="nominal events (default: DIR/test200)")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="events are here, or made"
    )
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N events of each kind")
    parser.add_argument(
        "--engines",
        action="store_true",
        help="compare the engines; keep the other numbers as written",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/physics"), help="results event by event"
    )
    parser.add_argument("--json", type=Path, default=RESULT, help="where the numbers go")
    parser.add_argument("--images", type=Path, default=ROOT / "docs/images")
    options = parser.parse_args()
    data, workers = options.data, options.workers
    plan = Plan(
        main=options.events or MAIN.ready(data / MAIN.name, workers),
        pileup_20=data / PILEUP_20.name,
        elsewhere={
            name: sample.ready(data / "elsewhere" / sample.name, workers)
            for name, sample in ({} if options.engines else ELSEWHERE).items()
        },
        bundle=options.bundle,
        limit=options.limit,
    )
    jobs = plan.jobs()
    if options.engines:
        jobs = {name: jobs[name] for name in ENGINES}
    else:
        PILEUP_20.ready(plan.pileup_20, workers)
    judged = dict(zip(jobs, judge(list(jobs.values()), options.work, workers), strict=True))
    if options.engines:
        record = json.loads(options.json.read_text()) | {"engines": engines(judged)}
    else:
        record = report(plan, judged)
        main, peer = judged["main"].together(), judged["ckf best"].together()
        draw_plots(main, peer, options.images / "physics")
        draw_shipped_event(open_pipeline(read_bundle(options.bundle)), options.images / "event.png")
    write_json(options.json, record)
    for name, make in TABLES.items():
        print(f"\n{name}\n\n{make(record)}")


if __name__ == "__main__":
    main()
