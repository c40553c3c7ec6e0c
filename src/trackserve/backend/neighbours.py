"""Algorithm 1: link hits whose embeddings lie within a radius."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import Entry
from trackserve.pipeline.neighbours import neighbours

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """EMBEDDING and SORTED_FEATURES in, EDGES out."""

    def run(self, embedding: Float32, features: Float32) -> Int64:
        """Return the edges ``[2, E]``."""
        return neighbours(
            embedding,
            features,
            self.bundle.features,
            radius=self.bundle.radius,
            limit=self.bundle.neighbour_limit,
            cuts=self.bundle.doublet_cuts,
            threads=self.threads,
        ).edges
