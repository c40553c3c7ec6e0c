"""Hits to features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import Entry
from trackserve.pipeline.features import feature_matrix

if TYPE_CHECKING:
    from trackserve.event import Float32


class TritonPythonModel(Entry):
    """HITS in, FEATURES out."""

    def run(self, hits: Float32) -> Float32:
        """Return the features ``[N, F]`` of hits ``[N, C]``."""
        self.check_count(len(hits))
        return feature_matrix(hits, self.bundle.features)
