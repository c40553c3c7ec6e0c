"""Processor seconds of a pipeline's stages, and the middle and spread of what was measured."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trackserve.engines.base import Pipeline
    from trackserve.event import Hits, Tracks

PART_OF = {"cut": "filter"}
"""Stages that count as part of another one."""


def stage_seconds(pipeline: Pipeline, hits: Hits) -> tuple[Tracks, dict[str, float]]:
    """Return the tracks of an event, the seconds of each stage and the rest, and processor seconds of all."""
    start, wall = time.process_time(), time.perf_counter()
    (found,) = pipeline.run_events([hit_features(hits, pipeline.bundle.features)])
    total, wall = time.process_time() - start, time.perf_counter() - wall
    seconds: dict[str, float] = defaultdict(float)
    for stage, spent in found.timings.seconds.items():
        seconds[PART_OF.get(stage, stage)] += spent
    # On one thread, what the wall's clock says more is time that others had.
    seconds = {stage: spent * total / wall for stage, spent in seconds.items()}
    return found.tracks, {**seconds, "rest": total - sum(seconds.values()), "total": total}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles and number of what was measured several times."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high, "count": len(values)}


def medians(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each stage over several events."""
    return {stage: float(np.median([m[stage] for m in measured])) for stage in measured[0]}


def exponent(x: Iterable[float], y: Iterable[float]) -> float:
    """Return the power of x with which y grows: the slope of a line through their logarithms."""
    slope, _ = np.polyfit(np.log(list(x)), np.log(list(y)), 1)
    return float(slope)
