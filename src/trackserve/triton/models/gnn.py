"""Network 3: score each edge in the light of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.event import Graph
from trackserve.pipeline.gnn import gnn_logits
from trackserve.triton.models.entry import NetworkEntry

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(NetworkEntry):
    """SORTED_FEATURES and KEPT_EDGES in, GNN_LOGITS out."""

    def run(self, features: Float32, edges: Int64) -> Float32:
        """Return the graph neural network's logit ``[K]`` of each edge."""
        return gnn_logits(self.network, Graph(features, edges))
