"""Network 1: features to points where hits of one track are neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.backend.entry import NetworkEntry
from trackserve.pipeline.embedding import embed

if TYPE_CHECKING:
    from trackserve.event import Float32


class TritonPythonModel(NetworkEntry):
    """SORTED_FEATURES in, EMBEDDING out."""

    def run(self, features: Float32) -> Float32:
        """Return the embedding ``[N, D]`` of features ``[N, F]``."""
        return embed(self.network, features)
