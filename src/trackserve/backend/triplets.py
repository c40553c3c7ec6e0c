"""Algorithm 2 and network 3: join edges that meet in a hit, keep those that fit one particle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.backend.entry import NetworkEntry
from trackserve.event import Graph
from trackserve.pipeline import keep_joined

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(NetworkEntry):
    """SORTED_FEATURES and PASSED_EDGES in, KEPT_EDGES and TRIPLETS out."""

    def run(self, features: Float32, edges: Int64) -> tuple[Int64, Int64]:
        """Return the edges that are in a triplet ``[2, K]`` and the triplets ``[2, T]``."""
        if self.network is None:
            return edges, np.empty((2, 0), np.int64)
        joined = keep_joined(self.network, Graph(features, edges), self.bundle)
        return joined.edges, joined.triplets
