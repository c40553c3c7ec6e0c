"""Algorithm 3: from scored edges to track candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.backend.entry import Entry
from trackserve.event import Graph
from trackserve.pipeline.gnn import with_scores
from trackserve.pipeline.tracks import find_tracks

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """SORTED_FEATURES, KEPT_EDGES, GNN_LOGITS and ORDER in, LABELS out."""

    def run(self, features: Float32, edges: Int64, logits: Float32, order: Int64) -> Int64:
        """Return the labels ``[N]`` in the order in which the hits came."""
        scored = with_scores(Graph(features, edges), logits)
        labels = np.empty_like(order)
        labels[order] = find_tracks(scored, self.bundle.track_stage).labels
        return labels
