"""Network 3: a graph neural network that scores each edge in the light of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import Graph, ScoredGraph
from trackserve.pipeline.networks import run_network

if TYPE_CHECKING:
    import onnxruntime


def score_edges(network: onnxruntime.InferenceSession, graph: Graph) -> ScoredGraph:
    """Return the graph with the GNN's score, in [0, 1], of each edge."""
    if graph.edges.shape[1]:
        logits = run_network(network, graph.features, graph.edges)
        scores = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    else:
        scores = np.empty(0, np.float32)
    return ScoredGraph(graph.features, graph.edges, scores.astype(np.float32, copy=False))
