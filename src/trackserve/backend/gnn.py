"""Network 4: score each edge in the light of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import NetworkEntry
from trackserve.event import Graph, TripletGraph
from trackserve.pipeline.gnn import gnn_logits

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(NetworkEntry):
    """SORTED_FEATURES, KEPT_EDGES and TRIPLETS in, GNN_LOGITS out."""

    def run(self, features: Float32, edges: Int64, triplets: Int64) -> Float32:
        """Return the graph neural network's logit ``[K]`` of each edge."""
        joined = self.bundle.triplets is not None
        graph = TripletGraph(features, edges, triplets) if joined else Graph(features, edges)
        return gnn_logits(self.network, graph)
