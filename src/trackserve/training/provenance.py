"""What a bundle states about itself: settings, provenance, and the physics measured on unseen events."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from trackserve import __version__
from trackserve.bundle import read_bundle
from trackserve.bundle.budget import budget_tables
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.report import Evaluation, evaluate, with_stages
from trackserve.pipeline.budget import KNOWN, Budget, Extent
from trackserve.training.events import by_data_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.data.sources import EventSource
    from trackserve.training.recipe import Recipe
    from trackserve.training.working_folder import Chosen


def description(
    recipe: Recipe,
    chosen: Chosen,
    *,
    data: Sequence[Path],
    events: Mapping[str, int],
    taken: Mapping[str, Bundle | None],
) -> dict[str, Any]:
    """Return the content of ``bundle.toml``, but for the physics.

    ``data`` are the folders and archives, ``events`` counts the events of each part, ``taken`` are the
    bundles that networks or weights came from.
    """
    return {
        "name": recipe.name,
        "detector": recipe.detector,
        "precision": recipe.precision,
        "features": {**columns_of(recipe), "absent": dict(recipe.features.absent)},
        "embedding": {"dimension": recipe.embedding.dimension},
        "neighbours": {
            "radius": chosen["radius"],
            "limit": recipe.embedding.neighbour_limit,
            "cuts": asdict(recipe.doublet_cuts),
        },
        "filter": {"cut": chosen["served_filter_cut"]},
        "triplets": {
            "chain": recipe.triplets.chain,
            "cut": chosen["served_triplet_cut"],
            "cuts": asdict(recipe.triplet_cuts),
        },
        "tracks": {
            "method": recipe.tracks.method,
            **({} if recipe.like else {"cut": chosen["track_cut"]}),
            "min_hits": recipe.tracks.min_hits,
        },
        **budget_tables(Budget(KNOWN.get(recipe.detector, Extent()))),
        "provenance": {
            "data": [path.name for path in data],
            **({"simulated": made} if (made := simulated(data)) else {}),
            "events": dict(events),
            "seed": recipe.seed,
            "versions": {
                "trackserve": __version__,
                **{name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")},
            },
            "recipe": asdict(recipe),
            **{name: taken_from(each) for name, each in taken.items() if each is not None},
        },
    }


def simulated(data: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the settings, seed included, of those folders of events that ``trackserve simulate`` made."""
    records = {path.name: path / "simulation.json" for path in data}
    return {
        name: json.loads(record.read_text(encoding="utf-8"))["settings"]
        for name, record in records.items()
        if record.is_file()
    }


def taken_from(bundle: Bundle) -> dict[str, Any]:
    """Return which bundle networks or weights were taken from, and how they were trained."""
    return {
        "bundle": f"{bundle.name} {bundle.digest()}",
        "recipe": bundle.provenance.get("recipe", {}),
    }


def measured_physics(
    bundle: Path, sources: Sequence[EventSource], threads: int
) -> dict[str, dict[str, float]]:
    """Measure a bundle on events that nothing was trained or chosen on, by data set."""
    pipeline = open_pipeline(read_bundle(bundle), engine="reference", threads=threads)
    columns = pipeline.bundle.features.wire_columns
    find = with_stages(pipeline)
    measured = {}
    for name, part in by_data_set(sources).items():
        bar = tqdm(part, desc=f"test {name}", unit="event", disable=None)
        measured[name] = headline_of(evaluate((s.read_columns(columns) for s in bar), find))
    return measured


def columns_of(recipe: Recipe) -> dict[str, Any]:
    """Return the features as ``bundle.toml`` and the networks' metadata name them."""
    columns = recipe.features
    return {"columns": list(columns.columns), "scales": list(columns.scales)}


def headline_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the numbers that a bundle is known by."""
    return {
        "events": evaluation.events,
        **{
            f"{name}_efficiency": round(counts.efficiency.value, 4)
            for name, counts in evaluation.targets.items()
        },
        "fake_rate": round(evaluation.fakes.value, 4),
        "duplicate_rate": round(evaluation.duplicates.value, 4),
        "trackml_score": round(float(np.mean(evaluation.scores)), 4),
        **{
            f"{name}_edges_per_event": round(counts.edges / evaluation.events)
            for name, counts in evaluation.stages.items()
        },
        **{
            f"{name}_edge_efficiency": round(counts.efficiency.value, 4)
            for name, counts in evaluation.stages.items()
        },
    }
