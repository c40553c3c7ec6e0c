"""The whole pipeline in one model, from hits or scaled features to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackserve.engines import open_pipeline
from trackserve.errors import InputError
from trackserve.pipeline.features import feature_matrix
from trackserve.triton.models.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """HITS or FEATURES in, LABELS out."""

    def load(self) -> None:
        """Open the networks."""
        self.pipeline = open_pipeline(
            self.bundle, engine=self.engine, threads=self.threads, precision=self.precision
        )
        self.pipeline.told = self.told

    def run(self, hits: Float32 | None, features: Float32 | None) -> Int64:
        """Return the labels ``[N]`` of hits ``[N, C]`` or of features ``[N, F]``."""
        if hits is not None:
            self.check_count(len(hits))
            features = feature_matrix(hits, self.bundle.features)
            self.told("features")
        elif features is not None:
            self.check_count(len(features))
        else:
            message = "neither HITS nor FEATURES came; expected one of them"
            raise InputError(message)
        return self.pipeline.find_tracks_from_features(features).labels

    def done(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Count the tracks; the pipeline has told of its stages."""
        self.count_tracks(outputs[0])
