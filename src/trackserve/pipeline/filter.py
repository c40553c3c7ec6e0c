"""Network 2: a look at each pair alone, to drop the bulk of wrong edges cheaply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import Float32, Graph
from trackserve.pipeline.networks import run_network

if TYPE_CHECKING:
    import onnxruntime

EDGES_AT_ONCE = 262_144
"""Edges scored in one call; a pair's logit depends on its own two hits only, so this bounds memory."""


def filter_logits(network: onnxruntime.InferenceSession, graph: Graph) -> Float32:
    """Return the filter's logit ``[E]`` of each edge."""
    edges = graph.edges
    parts = [
        run_network(network, graph.features, np.ascontiguousarray(edges[:, i : i + EDGES_AT_ONCE]))
        for i in range(0, edges.shape[1], EDGES_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def keep_edges(graph: Graph, logits: Float32, cut: float) -> Graph:
    """Return the graph of the edges whose score (the logistic function of the logit) passes."""
    return Graph(graph.features, graph.edges[:, logits >= least_logit(cut)])


def least_logit(cut: float) -> np.float32:
    """Return the logit whose logistic function is ``cut``."""
    return np.float32(np.log(cut) - np.log1p(-cut))
