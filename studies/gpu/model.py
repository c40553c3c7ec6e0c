"""What an event should take on a device, by what its stages move and multiply: a prediction, no measurement.

The device needs, of each stage, the longest of: bytes at MEMORY of the bandwidth of its memory;
multiply-adds at a part of its peak, by kind; and a least time for each kernel. The host needs a time
for each start and wait. A stage ends when both have: the host starts ahead while the device works.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.record import RESULTS, ROOT, write_json
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.passes import left_over
from trackserve.engines.registry import open_pipeline
from trackserve.event import TripletGraph
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.event import Float32

RESULT = RESULTS / "gpu-prediction.json"
EVENTS = {
    "pileup 20": ROOT / "examples/events/pu20",
    "pileup 200": ROOT / "examples/events/pu200",
}


@dataclass(frozen=True)
class Card:
    """A device by its maker's data sheet: TB/s of memory, TFLOP/s by kind (dense), GB/s of its bus."""

    memory: float
    matrix: float
    vector: float
    double: float
    bus: float


CARDS = {
    "A100": Card(2.04, 312, 19.5, 9.7, 32),
    "H100": Card(3.35, 989, 67, 34, 64),
    "MI300X": Card(5.3, 1307, 163, 82, 64),
}
WEDGE = 0.3
"""Half the azimuth (rad) that is counted: the interpreter takes its time."""
GROWS_WITH = {
    "order": "hits",
    "embedding": "hits",
    "neighbours": "candidates",
    "filter": "candidates",
    "triplets": "edges that meet",
    "gnn": "triplets",
    "tracks": "hits",
}
"""The list that the work of a stage is in proportion to."""
MEMORY, MATRIX, VECTOR = 0.7, 0.1, 0.3
"""Parts of the peaks that are assumed: matrices of 16 to 128 columns fill no unit of a device."""
OPERATION_US, KERNEL_US, WAIT_US, LEAST_US = 5.0, 10.0, 10.0, 2.5
"""Microseconds of the host for an operation of torch, a kernel of Triton, a wait; of the device for either, at least."""


def predict(counts: dict[str, Any], card: Card) -> dict[str, Any]:
    """Return milliseconds by stage, of the whole event, of device and host, and events a second."""
    stages, device_us, host_us = {}, 0.0, 0.0
    for stage, work in counts["stages"].items():
        device, bound = device_time(work, card)
        host = OPERATION_US * work["operations"] + KERNEL_US * work["kernels"]
        host += WAIT_US * work["waits"]
        device_us, host_us = device_us + device, host_us + host
        bound = "host" if host > device else bound
        stages[stage] = {"ms": max(device, host) / 1000, "device_ms": device / 1000, "bound": bound}
    bus = (counts["up_bytes"] + counts["down_bytes"]) / (card.bus * 1e3)
    stages["transfer"] = {
        "ms": (bus + 2 * WAIT_US) / 1000,
        "device_ms": bus / 1000,
        "bound": "bus",
    }
    device_us, host_us = device_us + bus, host_us + 2 * WAIT_US
    return {
        "stages": stages,
        "ms": sum(stage["ms"] for stage in stages.values()),
        "device_ms": device_us / 1000,
        "host_ms": host_us / 1000,
        "events_per_second": 1e6 / max(device_us, host_us),
    }


def device_time(work: dict[str, int], card: Card) -> tuple[float, str]:
    """Return the microseconds of the device for a stage, and what bounds them."""
    starts = work["operations"] + work["kernels"]
    times = {
        "memory": work["bytes"] / (MEMORY * card.memory * 1e6),
        "products": 2 * work["matrix"] / (MATRIX * card.matrix * 1e6),
        "arithmetic": 2 * work["vector"] / (VECTOR * card.vector * 1e6)
        + 2 * work["double"] / (VECTOR * card.double * 1e6),
        "starts": LEAST_US * starts,
    }
    bound = max(times, key=lambda name: times[name])
    return times[bound], bound


def scaled(counts: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Return the counts of an event with lists of other sizes: of as many starts, and work in proportion."""
    own = counts["sizes"]
    stages = {}
    for stage, work in counts["stages"].items():
        factor = sizes[GROWS_WITH[stage]] / own[GROWS_WITH[stage]]
        kinds = ("bytes", "matrix", "vector", "double")
        stages[stage] = {**work, **{kind: round(factor * work[kind]) for kind in kinds}}
    boxes = counts["boxes"] * (sizes["hits"] / own["hits"]) ** 2
    pairs = sizes["candidates"] / own["candidates"] * counts["tile_pairs"]
    stages["neighbours"]["vector"] = round(boxes + pairs)
    factor = sizes["hits"] / own["hits"]
    transfer = {name: round(factor * counts[name]) for name in ("up_bytes", "down_bytes")}
    return {"sizes": sizes, "stages": stages, **transfer}


def counts_of(
    wedges: Sequence[dict[str, Any]], bundle: Bundle, features: Float32
) -> dict[str, Any]:
    """Return the counts of an event, of all its passes, given those of a wedge in each pass.

    The sizes of its lists are those of the first pass.
    """
    passes = passes_of(bundle, features)
    each = [scaled(wedge, sizes_of(*one)) for wedge, one in zip(wedges, passes, strict=False)]
    return reduce(_added, each)


def passes_of(bundle: Bundle, features: Float32) -> list[tuple[Bundle, Float32]]:
    """Return each pass over an event, with the features that it is given."""
    if bundle.second_pass is None:
        return [(bundle, features)]
    first = open_pipeline(bundle.first_pass, engine="native").find_tracks_from_features(features)
    return [(bundle.first_pass, features), (bundle.second_pass, features[left_over(first)])]


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    stages = {
        stage: {kind: value + other["stages"][stage][kind] for kind, value in work.items()}
        for stage, work in one["stages"].items()
    }
    transfer = {name: one[name] + other[name] for name in ("up_bytes", "down_bytes")}
    return {"sizes": one["sizes"], "stages": stages, **transfer}


def sizes_of(bundle: Bundle, features: Float32) -> dict[str, int]:
    """Return how long the lists of an event are, by the native engine."""
    found = open_pipeline(bundle, engine="native").run(features)
    inner, outer = found.filtered.edges
    onward = np.bincount(inner, minlength=len(features))
    graph = found.joined
    return {
        "hits": len(features),
        "candidates": found.candidates.edges.shape[1],
        "edges that pass the filter": len(inner),
        "edges that meet": int(onward[outer].sum()),
        "edges on chains": graph.edges.shape[1],
        "triplets": graph.triplets.shape[1] if isinstance(graph, TripletGraph) else 0,
        "tracks": len(found.tracks),
    }


def run(path: Path = RESULT, events: dict[str, Path] | None = None) -> dict[str, Any]:
    """Count a wedge of the first event in each pass, scale the counts to each event, predict what it takes, and write that."""
    from studies.gpu.work import count_work  # noqa: PLC0415 - imports triton, which must interpret

    bundle = read_bundle().with_budget({"seconds": 1e6})  # the interpreter takes its time
    counted: dict[str, Any] = {}
    wedges: list[dict[str, Any]] = []
    for name, folder in (events or EVENTS).items():
        source = find_events(folder)[0]
        hits = source.read_columns(bundle.features.wire_columns, truth=False).hits
        features = hit_features(hits, bundle.features)
        if not wedges:
            part = features[np.abs(np.arctan2(hits.y, hits.x)) < WEDGE]
            passes = passes_of(bundle, part)
            wedges = [{"sizes": sizes_of(*one), **count_work(*one)} for one in passes]
        counted[name] = counts_of(wedges, bundle, features)
    return write_record(path, bundle, wedges, counted)


def write_record(
    path: Path, bundle: Bundle, wedges: list[dict[str, Any]], counted: dict[str, Any]
) -> dict[str, Any]:
    """Predict each event on each card, and write that."""
    record = {
        "is": "a prediction from counts and data sheets; nothing here was measured on a GPU",
        "bundle": {"name": bundle.name, "precision": bundle.precision},
        "assumed": {
            "parts_of_the_peak": {"memory": MEMORY, "matrix": MATRIX, "vector": VECTOR},
            "microseconds": {
                "operation": OPERATION_US,
                "kernel": KERNEL_US,
                "wait": WAIT_US,
                "least": LEAST_US,
            },
            "cards": {name: asdict(card) for name, card in CARDS.items()},
        },
        "wedges": wedges,
        "counts": counted,
        "predicted": {
            name: {card: predict(counts, CARDS[card]) for card in CARDS}
            for name, counts in counted.items()
        },
    }
    write_json(path, record)
    return record
