"""The whole pipeline in one model, from hits or scaled features to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.engines import open_pipeline
from trackserve.errors import InputError
from trackserve.pipeline.features import feature_matrix
from trackserve.triton.models.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trackserve.event import Float32, Int64


class TritonPythonModel(Entry):
    """HITS or FEATURES in, LABELS out; COUNTS where there are several events in a row."""

    def load(self) -> None:
        """Open the networks."""
        self.pipeline = open_pipeline(
            self.bundle, engine=self.engine, threads=self.threads, precision=self.precision
        )
        self.pipeline.told = self.told

    def made_up(self, hits: int) -> list[NDArray[Any] | None]:
        """Return hits, no features, and one event."""
        return [super().made_up(hits)[0], None, None]

    def run(self, hits: Float32 | None, features: Float32 | None, counts: Int64 | None) -> Int64:
        """Return the labels ``[N]`` of hits ``[N, C]`` or of features ``[N, F]``, for each event apart."""
        rows = features if hits is None else hits
        if rows is None:
            message = "neither HITS nor FEATURES came; expected one of them"
            raise InputError(message)
        events = [rows] if counts is None else np.split(rows, np.cumsum(counts)[:-1])
        labels = [self._labels(event, made=hits is None) for event in events]
        for each in labels:
            self.count_tracks(each)
        return labels[0] if counts is None else np.concatenate(labels)

    def _labels(self, rows: Float32, *, made: bool) -> Int64:
        """Return the labels ``[N]`` of an event; its features may be made already."""
        self.check_count(len(rows))
        if not made:
            rows = feature_matrix(rows, self.bundle.features)
            self.told("features")
        return self.pipeline.find_tracks_from_features(rows).labels

    def done(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Count nothing more: the pipeline has told of its stages."""
