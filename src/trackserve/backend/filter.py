"""Network 2: a look at each pair alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import NetworkEntry
from trackserve.event import Graph
from trackserve.pipeline.filter import filter_logits

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(NetworkEntry):
    """SORTED_FEATURES and EDGES in, FILTER_LOGITS out."""

    def run(self, features: Float32, edges: Int64) -> Float32:
        """Return the filter's logit ``[E]`` of each edge."""
        return filter_logits(self.network, Graph(features, edges))
