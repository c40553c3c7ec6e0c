"""Processor seconds of a pipeline's stages, and the middle and spread of what was measured."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import trackserve.pipeline
from trackserve.native.engine import ReferenceNetwork
from trackserve.native.library import Library
from trackserve.native.networks import NativeNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trackserve.event import Hits, Tracks
    from trackserve.pipeline import Pipeline

STAGES = {
    **dict.fromkeys(("hit_features", "canonical_order"), "order"),
    "embed": "embedding",
    **dict.fromkeys(("filter_logits", "keep_edges"), "filter"),
    **dict.fromkeys(
        ("join_edges", "triplet_logits", "keep_triplets", "find_triplets", "keep_chains"),
        "triplets",
    ),
    "score_edges": "gnn",
    "build_tracks": "tracks",
}
"""The stage that a function belongs to, where it is not called as its stage."""
NO_STAGES = {"load_network", "make_network", "free_network", "run_network", "precisions"}


def stage_seconds(pipeline: Pipeline, hits: Hits) -> tuple[Tracks, dict[str, float]]:
    """Return the tracks of an event and the processor seconds of each stage, the rest and all."""
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as clocks:
        for owner, name, stage in _functions(pipeline):
            timed = _timed(getattr(owner, name), STAGES.get(stage, stage), seconds)
            clocks.enter_context(mock.patch.object(owner, name, timed))
        start = time.process_time()
        tracks = pipeline.find_tracks(hits)
        total = time.process_time() - start
    return tracks, {**seconds, "rest": total - sum(seconds.values()), "total": total}


def _functions(pipeline: Pipeline) -> Iterator[tuple[Any, str, str]]:
    """Yield what runs a pipeline's stages: whose attribute it is, its name there, and its stage."""
    reference = vars(trackserve.pipeline).items()
    for name, value in reference:
        ours = inspect.isfunction(value) and value.__module__.startswith("trackserve.pipeline.")
        if ours and name not in NO_STAGES:
            yield trackserve.pipeline, name, name
    for name, value in vars(pipeline).items():
        if isinstance(value, NativeNetwork) and value.family.kind != "triplets":
            yield pipeline, name, value.family.kind  # triplets are found by the library, see there
        if isinstance(value, ReferenceNetwork):
            yield pipeline, name, value.name
        if isinstance(value, Library):
            for function in vars(Library):
                if not function.startswith("_") and function not in NO_STAGES:
                    yield value, function, function


def _timed(
    function: Callable[..., Any], stage: str, seconds: dict[str, float]
) -> Callable[..., Any]:
    def timed(*arguments: object, **named: object) -> object:
        start = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            seconds[stage] += time.process_time() - start

    return timed


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
