"""The whole pipeline in one model, from hits to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.engines import open_pipeline
from trackserve.pipeline.features import feature_matrix
from trackserve.triton.models.entry import Entry

if TYPE_CHECKING:
    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """HITS in, LABELS out."""

    def load(self) -> None:
        """Open the networks."""
        self.pipeline = open_pipeline(self.bundle, engine=self.engine, threads=self.threads)

    def run(self, hits: Float32) -> Int64:
        """Return the labels ``[N]`` of hits ``[N, C]``."""
        self.check_count(len(hits))
        features = feature_matrix(hits, self.bundle.features)
        return self.pipeline.find_tracks_from_features(features).labels
