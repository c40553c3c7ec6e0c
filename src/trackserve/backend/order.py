"""Hits into canonical order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import Entry
from trackserve.pipeline.features import canonical_order

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """FEATURES in; SORTED_FEATURES and ORDER out."""

    def run(self, features: Float32) -> tuple[Float32, Int64]:
        """Return the sorted features ``[N, F]`` and the input row of each ``[N]``."""
        self.check_count(len(features))
        self.bundle.check_features(features)
        order = canonical_order(features, self.bundle.features)
        return features[order], order
