from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tiny_bundle import straight_tracks
from trackserve.errors import BundleError, InputError
from trackserve.event import Hits
from trackserve.pipeline.features import (
    FeatureColumns,
    canonical_order,
    cylindrical,
    feature_matrix,
    hit_features,
)

CYLINDER = FeatureColumns(("r", "phi", "z"), (1000.0, np.pi, 500.0), {})
CHARGED = FeatureColumns(("x", "y", "z", "charge", "cells"), (1.0,) * 5, {"charge": 0.5})
positions = st.floats(-3000, 3000, width=32)


def table(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_features_worked_out_by_hand():
    columns = ("x", "y", "z", "r", "phi", "theta", "eta", "cos_phi", "sin_phi")
    spec = FeatureColumns(columns, (1.0, 2.0, 4.0, 10.0, np.pi, np.pi, 1.0, 1.0, 1.0), {})
    found = feature_matrix(table((3, 4, 12), (0, -2, 0), (0, 0, -5)), spec)
    assert found.dtype == np.float32
    expected = [
        [3, 2, 3, 0.5, 0.2951672, 0.1256659, 1.6094379, 0.6, 0.8],
        [0, -1, 0, 0.2, -0.5, 0.5, 0, 0, -1],
        [0, 0, -1.25, 0, 0, 1, -9.2103404, 1, 0],
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_columns_are_sent_in_one_order_whatever_the_order_of_the_features():
    spec = FeatureColumns(("charge", "z", "volume_id", "y", "x"), (1.0,) * 5, {})
    assert spec.wire_columns == ("x", "y", "z", "volume_id", "charge")
    found = feature_matrix(table((1, 2, 3, 7, 0.5)), spec)
    assert found.tolist() == [[0.5, 3, 7, 2, 1]]


def test_absent_columns_are_filled():
    spec = FeatureColumns(("r", "phi", "z", "charge"), (1.0, 1.0, 1.0, 2.0), {"charge": 3.0})
    bare = feature_matrix(table((1, 0, 0)), spec)
    assert bare.tolist() == [[1, 0, 0, 1.5]]
    hits = Hits.from_positions(table((1, 0, 0)))
    np.testing.assert_array_equal(hit_features(hits, spec), bare)


def test_columns_that_hits_have_are_not_filled():
    hits = straight_tracks(tracks=1)
    assert hits.clusters is not None
    spec = FeatureColumns(("x", "y", "z", "charge"), (1.0,) * 4, {"charge": 9.0})
    np.testing.assert_array_equal(hit_features(hits, spec)[:, 3], hits.clusters.charge)


def test_columns_that_are_needed_and_missing():
    with pytest.raises(InputError, match="hits have x, y, z only; this bundle also needs cells"):
        feature_matrix(table((1, 2, 3)), CHARGED)
    with pytest.raises(InputError, match="these hits have no column 'cells'"):
        hit_features(Hits.from_positions(table((1, 2, 3))), CHARGED)


@pytest.mark.parametrize(
    "hits",
    [np.zeros((2, 4), np.float32), np.zeros((2, 5)), np.zeros(5, np.float32)],
    ids=["columns", "type", "dimensions"],
)
def test_a_table_that_does_not_fit(hits):
    with pytest.raises(InputError, match=r"expected float32 of shape \[N, 5\]: x, y, z, cells, ch"):
        feature_matrix(hits, CHARGED)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named(value):
    hits = np.ones((9, 5), np.float32)
    hits[6, 4] = hits[7, 0] = value
    with pytest.raises(InputError) as raised:
        feature_matrix(hits, CHARGED)
    assert str(raised.value) == f"hit row 6: charge is {value}; every hit needs finite numbers"


def test_no_hits():
    assert feature_matrix(np.empty((0, 3), np.float32), CYLINDER).shape == (0, 3)
    assert canonical_order(np.empty((0, 3), np.float32), CYLINDER).shape == (0,)


@pytest.mark.parametrize("columns", [("r", "phi"), ("x", "y", "r", "phi"), ()])
def test_a_position_is_needed(columns):
    with pytest.raises(BundleError, match="since edges are oriented by position"):
        FeatureColumns(columns, (1.0,) * len(columns), {})


@given(arrays.arrays(np.float32, (7, 3), elements=positions))
def test_position_is_read_back_from_the_features(hits):
    expected = np.hypot(hits[:, 0], hits[:, 1])
    for columns in (("phi", "z", "r"), ("x", "z", "y")):
        spec = FeatureColumns(columns, (3.0, 7.0, 11.0), {})
        r, phi, z = cylindrical(feature_matrix(hits, spec), spec)
        np.testing.assert_allclose(r, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(z, hits[:, 2], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(r * np.cos(phi), hits[:, 0], rtol=1e-4, atol=1e-2)


def test_canonical_order_by_hand():
    features = table((3, 0.5, 0), (0, 0, 1), (0, 0.25, -2), (0, -0.25, 2), (1, 0, 0))
    spec = FeatureColumns(("r", "phi", "z"), (1.0, 1.0, 1.0), {})
    # Distances 3, 1, 2, 2, 1; of equal ones the last feature decides, z.
    assert canonical_order(features, spec).tolist() == [4, 1, 2, 3, 0]


@given(
    arrays.arrays(np.float32, (9, 3), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])),
    st.permutations(range(9)),
)
def test_canonical_order_depends_on_the_hits_alone(features, permutation):
    order = canonical_order(features, CYLINDER)
    assert sorted(order) == list(range(9))
    again = features[permutation]
    np.testing.assert_array_equal(features[order], again[canonical_order(again, CYLINDER)])
    r, _, z = cylindrical(features[order], CYLINDER)
    assert (np.diff(r * r + z * z) >= 0).all()
