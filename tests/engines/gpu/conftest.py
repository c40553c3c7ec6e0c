"""A small event of the shipped bundle and one of a made-up family, each run once by the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from known_networks import WITH_SHAPES, describe, network, write_numbers
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.reference import ReferencePipeline
from trackserve.pipeline.features import hit_features

pytest.importorskip("torch")
pytest.importorskip("triton")
EVENTS = Path(__file__).parents[3] / "examples/events/pu20"


@pytest.fixture(scope="session")
def shipped():
    """The shipped bundle in one pass, features of hits in a narrow wedge, and what the reference makes of them.

    As many tracks as a bundle of one pass keeps: the cut of the first of two leaves few.
    """
    bundle = read_bundle()
    builder = replace(bundle.track_builder, min_quality=bundle.min_quality)
    bundle = replace(bundle, track_builder=builder, second_pass=None)
    hits = find_events(EVENTS)[0].read().hits
    features = hit_features(hits, bundle.features)
    features = features[np.abs(np.arctan2(hits.y, hits.x)) < 0.06]
    return bundle, features, ReferencePipeline(bundle).run(features)


@pytest.fixture
def numbers(tmp_path):
    """Write the numbers of a random network with features beyond r, phi, z; return it and its file."""

    def write(kind, **sizes):
        made = network(kind, WITH_SHAPES, **sizes)
        write_numbers(tmp_path / f"{kind}.onnx", made, describe(kind, WITH_SHAPES, **sizes))
        return made, tmp_path / f"{kind}.onnx"

    return write
