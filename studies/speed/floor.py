"""The least seconds that products and bytes leave possible for each stage on this core.

Counted are the products of weights with inputs and states, the distance of each edge that the neighbours give,
and the bytes of edges, triplets and states that don't fit into a cache; at the rates that the core's own
multiply-add instructions and a copy of a large array reach (peak.cpp). No indices, activations,
comparisons, square roots or divisions.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.speed.compiled import run
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.engines.native.networks import NativeNetwork
from trackserve.pipeline.features import cylindrical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.engines.native import NativePipeline
    from trackserve.event import Float32

BYTES = {"float32": 4, "bfloat16": 2}


def floor(
    pipelines: Mapping[str, NativePipeline],
    features: Float32,
    measured: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return for each precision the floor of each stage beside its ``measured`` seconds."""
    rate: dict[str, float] = run("peak.cpp")
    found: dict[str, Any] = {"rates": rate, "precisions": {}}
    for precision, pipeline in pipelines.items():
        stages = {}
        for name, (first, others, moved) in _counts(pipeline, features, BYTES[precision]).items():
            stages[name] = {
                "products_float32": first,
                "products": others,
                "bytes": moved,
                "seconds": first / rate["float32"]
                + others / rate[precision]
                + moved / rate["bytes"],
                "measured": measured[precision][name],
            }
        found["precisions"][precision] = {
            "stages": stages,
            "seconds": sum(stage["seconds"] for stage in stages.values()),
            "measured": sum(stage["measured"] for stage in stages.values()),
        }
    return found


def _counts(
    pipeline: NativePipeline, features: Float32, size: int
) -> dict[str, tuple[int, int, int]]:
    """Return of each stage its products that are always in float32, its others, and its bytes."""
    found = pipeline._find(features, LABELS_ONLY, pipeline.bundle.budget.limits(len(features)))
    hits, candidates, filtered, joined = map(
        len, (found.features, found.candidates[0], found.filtered[0], found.joined[0])
    )
    assert found.triplets is not None, "a bundle without triplets has no such floor"
    links, scored = len(found.triplets[0]), _triplets_that_pass(pipeline, found)
    networks = (
        pipeline._embed,
        pipeline._filter_logits,
        pipeline._triplet_logits,
        pipeline._gnn_logits,
    )
    families = [n.family for n in networks if isinstance(n, NativeNetwork)]
    embedding, edge, triplet, gnn = families
    dimension, w, steps = embedding.dimension, gnn.width, gnn.depth
    e, f, t = embedding.width, edge.width, triplet.width
    of_nodes = 2 * w * w + steps * 4 * w * w + (steps - 1) * 2 * w * w
    of_links = w * w + (steps - 1) * 2 * w * w
    # States are read and written once by the pass over them, links read once more by their nodes.
    states = (3 * steps - 1) * links + (2 * steps + 3 * (steps - 1)) * joined
    return {
        "embedding": (
            hits * 7 * e,
            hits * ((embedding.depth - 1) * e * e + e * dimension),
            hits * 4 * (3 + dimension),
        ),
        "neighbours": (candidates * dimension, 0, hits * 4 * dimension + candidates * 8),
        "filter": (candidates * 14 * f, candidates * (edge.depth - 1) * f * f, candidates * 12),
        "triplets": (
            scored * 10 * t + 2 * filtered * 13 * t,
            scored * (triplet.depth - 1) * t * t,
            2 * filtered * 8 + links * 8,
        ),
        "gnn": (
            joined * 14 * w + links * 9 * w,
            joined * of_nodes + links * of_links,
            size * w * states,
        ),
    }


def _triplets_that_pass(pipeline: NativePipeline, found: Any) -> int:
    """Return how many triplets pass the cuts of an event."""
    assert pipeline.bundle.triplets is not None
    columns, cuts = pipeline.bundle.features, pipeline.bundle.triplets.cuts
    position = [np.ascontiguousarray(x) for x in cylindrical(found.features[found.place], columns)]
    how = {"cuts": astuple(cuts), "threads": 1}
    return len(pipeline.library.join_edges(tuple(position), found.filtered, **how)[0])
