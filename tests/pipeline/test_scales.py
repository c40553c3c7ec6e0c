"""Features in other scales than the bundle's are found, right ones never."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_bundle import straight_tracks
from trackserve.bundle import read_bundle
from trackserve.bundle.foreign import check_scales
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError, InputWarning
from trackserve.pipeline.features import FeatureColumns, feature_matrix
from trackserve.pipeline.scales import out_of_scale

PUBLISHED = FeatureColumns(("r", "phi", "z"), (1000.0, np.pi, 1000.0), {})
HITS = straight_tracks(tracks=200, noise=100)
FEATURES = feature_matrix(HITS.table(("x", "y", "z")), PUBLISHED)


@pytest.mark.parametrize(
    ("factors", "name", "expected"),
    [
        pytest.param((1, np.pi, 1), "phi reaches 3.14", "at most 1", id="phi in rad"),
        pytest.param((1, 180, 1), "phi reaches 180", "at most 1", id="phi in degrees"),
        pytest.param((1000, np.pi, 1000), "r reaches 1.15e[+]03", "about 1", id="unscaled"),
        pytest.param((1, 1, 1e-3), "z reaches 0.00148", "about 1", id="z in m, then scaled"),
    ],
)
def test_other_scales_are_named(factors, name, expected):
    found = out_of_scale(FEATURES * np.float32(factors), PUBLISHED, extent_known=False)
    assert found is not None
    with pytest.raises(
        InputError, match=rf"{name}, expected {expected}, .* r / 1000, phi / 3.14159, z / 1000 "
    ):
        raise InputError(found)


def test_where_the_extent_is_known_lengths_are_left_to_the_budget():
    unscaled = FEATURES * np.float32((1000, 1, 1000))
    assert out_of_scale(unscaled, PUBLISHED, extent_known=True) is None


@given(
    hits=st.integers(0, 300),
    seed=st.integers(0, 2**32 - 1),
    columns=st.permutations(("x", "y", "z", "r", "phi", "theta", "eta", "cos_phi", "sin_phi")),
)
def test_right_features_are_never_doubted(hits, seed, columns):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-1, 1, (hits, 3)).astype(np.float32) * np.float32((1000, 1000, 3000))
    positions[: hits // 2, 1] = 0.0  # phi at both ends of its range
    scale = {"x": 1e3, "y": 1e3, "z": 1e3, "r": 1e3, "theta": np.pi, "phi": np.pi, "eta": 4.0}
    right = FeatureColumns(tuple(columns), tuple(scale.get(c, 1.0) for c in columns), {})
    assert out_of_scale(feature_matrix(positions, right), right, extent_known=False) is None


def test_few_hits_may_lie_at_the_origin():
    near = feature_matrix(np.float32([[31.0, 0.0, 0.5]] * 3), PUBLISHED)
    assert out_of_scale(near, PUBLISHED, extent_known=False) is None
    assert out_of_scale(near[:0], PUBLISHED, extent_known=False) is None


def test_a_bundle_that_ships_warns_in_process_of_features_alone():
    pipeline = open_pipeline(read_bundle("trackml"), engine="reference")
    expected = pipeline.find_tracks(HITS).labels
    np.testing.assert_array_equal(pipeline.find_tracks_from_features(FEATURES).labels, expected)
    with pytest.warns(InputWarning, match=r"phi reaches 3.14, expected at most 1"):
        pipeline.find_tracks_from_features(FEATURES * np.float32((1, np.pi, 1)))


def test_hits_outside_of_the_detector_are_doubted_too():
    bundle = read_bundle("trackml").with_budget({"outside": "warn"})
    assert bundle.doubt(FEATURES) is None
    assert "expected at most 1" in (bundle.doubt(FEATURES * np.float32((1, np.pi, 1))) or "")
    found = bundle.doubt(FEATURES * np.float32((1000, 1, 1000)))
    assert found is not None
    assert "are these um, not mm?" in found


def test_networks_that_are_adopted_are_held_to_the_same_range():
    check_scales([1000.0], ["r"], [32.0], [9_900.0])
    with pytest.raises(InputError, match=r"it reaches 10\.1"):
        check_scales([1000.0], ["r"], [32.0], [10_100.0])
