"""The whole pipeline in one model, from scaled features to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.engines import open_pipeline
from trackserve.triton.models.entry import Entry

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """FEATURES in, LABELS out."""

    def load(self) -> None:
        """Open the networks."""
        self.pipeline = open_pipeline(self.bundle, engine=self.engine, threads=self.threads)

    def run(self, features: Float32) -> Int64:
        """Return the labels ``[N]`` of features ``[N, F]``."""
        self.check_count(len(features))
        return self.pipeline.find_tracks_from_features(features).labels
