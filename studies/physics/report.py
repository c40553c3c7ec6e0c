"""What was measured, as numbers: every ratio as a fraction with its 68.3 % interval and its counts."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.physics.ckf import CONFIGURATIONS
from studies.physics.plan import ENGINES
from trackserve.bundle import read_bundle
from trackserve.evaluate.metrics import TARGET_SETS
from trackserve.evaluate.report import DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from studies.physics.judge import Judged
    from studies.physics.plan import Plan
    from trackserve.evaluate.intervals import Ratio
    from trackserve.evaluate.report import Evaluation


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
    rates = {
        **ratio("fake_rate", total.fakes),
        **ratio("hard_fake_rate", total.hard_fakes),
        **ratio("duplicate_rate", total.duplicates),
    }
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
    """Return the settings that the events of a folder were made with, as far as it records them."""
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
