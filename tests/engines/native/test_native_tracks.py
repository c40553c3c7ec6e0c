from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.stages import find_tracks
from trackserve.event import ScoredGraph
from trackserve.pipeline.components import TrackBuilder
from trackserve.pipeline.components import build_tracks as reference
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.tracks import TrackStage

each_variant = pytest.mark.parametrize("variant", variants())


@st.composite
def scored_graphs(draw):
    n = draw(st.integers(0, 40))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    edges = np.array(sorted(chosen), np.int64).reshape(-1, 2).T.copy()
    score = st.sampled_from([0.0, 0.2, 0.5, 0.5000001, 0.9, 1.0])
    scores = draw(st.lists(score, min_size=len(chosen), max_size=len(chosen)))
    return ScoredGraph(np.zeros((n, 3), np.float32), edges, np.array(scores, np.float32))


@each_variant
@settings(deadline=None, max_examples=100)
@given(
    graph=scored_graphs(),
    method=st.sampled_from(["components", "walk"]),
    cut=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    min_hits=st.integers(1, 4),
)
def test_tracks_equal_the_reference(variant, graph, method, cut, min_hits):
    builder = TrackBuilder(method, cut, min_hits)
    stage = TrackStage(FeatureColumns(("r", "phi", "z"), (1.0, 1.0, 1.0), {}), builder)
    np.testing.assert_array_equal(
        find_tracks(graph, stage, library(variant)).labels, reference(graph, builder).labels
    )
