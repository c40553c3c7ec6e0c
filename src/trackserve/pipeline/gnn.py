"""Network 4: a graph neural network that scores each edge in the light of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import Float32, Graph, ScoredGraph, TripletGraph
from trackserve.pipeline.networks import run_network

if TYPE_CHECKING:
    import onnxruntime


def gnn_logits(network: onnxruntime.InferenceSession, graph: Graph) -> Float32:
    """Return the GNN's logit ``[E]`` of each edge."""
    if not graph.edges.shape[1]:
        return np.empty(0, np.float32)
    triplets = graph.triplets if isinstance(graph, TripletGraph) else None
    return run_network(network, graph.features, graph.edges, triplets)


def with_scores(graph: Graph, logits: Float32) -> ScoredGraph:
    """Return the graph with each edge's score in [0, 1]."""
    return ScoredGraph(graph.features, graph.edges, scores_of(logits))


def scores_of(logits: Float32) -> Float32:
    """Return the scores ``[E]``: the logistic function of the logits."""
    scores: Float32 = (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32, copy=False)
    return scores


def score_edges(network: onnxruntime.InferenceSession, graph: Graph) -> ScoredGraph:
    """Return the graph with the GNN's score, in [0, 1], of each edge."""
    return with_scores(graph, gnn_logits(network, graph))
