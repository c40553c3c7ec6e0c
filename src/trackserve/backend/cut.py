"""Drop the pairs that the filter scores low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import Entry
from trackserve.event import Graph
from trackserve.pipeline.filter import keep_edges

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """SORTED_FEATURES, EDGES and FILTER_LOGITS in, PASSED_EDGES out."""

    def run(self, features: Float32, edges: Int64, logits: Float32) -> Int64:
        """Return the edges that are kept ``[2, P]``."""
        return keep_edges(Graph(features, edges), logits, self.bundle.filter_cut).edges
