from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.stages import canonical_order, neighbours
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.features import canonical_order as reference_order
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.pipeline.neighbours import neighbours as reference

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.0, 1000.0), {})
CUTS = DoubletCuts(slope=2e-3, z0=300.0, dphi=0.02, dcot=0.01)
NO_CUTS = DoubletCuts()

each_variant = pytest.mark.parametrize("variant", variants())


def hits(n: int, seed: int = 0) -> np.ndarray:
    """Features of hits spread over the detector, in canonical order."""
    rng = np.random.default_rng(seed)
    features = rng.uniform((0.03, -1, -1), (1, 1, 1), (n, 3)).astype(np.float32)
    return features[reference_order(features, COLUMNS)]


def clusters(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Points of very different density."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1 + n // 20, dimension))
    spread = rng.exponential(0.1, n)[:, None]
    return (
        centres[rng.integers(len(centres), size=n)] + spread * rng.normal(size=(n, dimension))
    ).astype(np.float32)


def check_equal(embedding, features, variant, *, threads=1, **how):
    expected = reference(embedding, features, COLUMNS, **how)
    found = neighbours(
        embedding, features, COLUMNS, **how, threads=threads, library=library(variant)
    )
    np.testing.assert_array_equal(found.edges, expected.edges)
    return found


@each_variant
@pytest.mark.parametrize("dimension", [1, 3, 4, 8, 11, 16, 21])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_edges_equal_the_reference(variant, dimension, limit):
    embedding = clusters(1500, dimension)
    graph = check_equal(
        embedding, hits(1500), variant, radius=0.2, limit=limit, cuts=CUTS, threads=2
    )
    assert graph.edges.shape[1] > 20


@each_variant
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_edges_equal_the_reference_on_a_grid(variant, data):
    """On a grid, pairs lie exactly at the radius and points coincide; the limit is out of reach."""
    n = data.draw(st.integers(0, 150))
    dimension = data.draw(st.integers(1, 6))
    steps = data.draw(arrays.arrays(np.int8, (n, dimension), elements=st.integers(-3, 3)))
    scale = data.draw(st.sampled_from([1.0, 0.1, 1e-3, 1e10]))
    radius = data.draw(st.sampled_from([1.0, 2.0, 3.0, 0.999]))
    embedding = steps.astype(np.float32) * np.float32(scale)
    features = hits(n, seed=data.draw(st.integers(0, 9)))
    cuts = data.draw(
        st.sampled_from([CUTS, NO_CUTS, DoubletCuts(slope=1e-3), DoubletCuts(z0=99.0)])
    )
    threads = data.draw(st.integers(1, 3))
    check_equal(
        embedding, features, variant, radius=radius * scale, limit=n + 1, cuts=cuts, threads=threads
    )


@each_variant
def test_hits_at_one_distance_from_the_origin_are_not_linked(variant):
    features = np.repeat(hits(50), 2, axis=0)
    check_equal(clusters(100, 4), features, variant, radius=9.0, limit=200, cuts=NO_CUTS)


@each_variant
def test_of_equally_near_hits_those_of_lower_rows_are_nearer(variant):
    embedding, features = np.zeros((100, 8), np.float32), hits(100)
    graph = neighbours(
        embedding, features, COLUMNS, radius=1.0, limit=2, cuts=NO_CUTS, library=library(variant)
    )
    lowest = {(0, j) for j in range(1, 100)} | {(1, j) for j in range(2, 100)} | {(0, 2), (1, 2)}
    assert set(map(tuple, graph.edges.T)) == lowest


@each_variant
@pytest.mark.parametrize("points", ["equal", "one dense cell", "one line"])
def test_dense_hits_take_bounded_time_and_edges(variant, points):
    n, limit = 20_000, 8
    embedding = np.zeros((n, 8), np.float32)
    if points != "equal":
        axes = 8 if points == "one dense cell" else 1
        embedding[:, :axes] = np.random.default_rng(1).normal(size=(n, axes)) * 1e-3
    started = time.process_time()
    graph = neighbours(
        embedding, hits(n), COLUMNS, radius=1.0, limit=limit, cuts=NO_CUTS, library=library(variant)
    )
    assert n * limit / 2 <= graph.edges.shape[1] <= n * limit
    assert time.process_time() - started < 20


@each_variant
def test_hits_without_a_finite_embedding_have_no_neighbours(variant):
    embedding, features = clusters(500, 5), hits(500)
    broken = np.arange(0, 500, 7)
    finite = np.setdiff1d(np.arange(500), broken)
    embedding[broken, 1] = np.resize([np.nan, np.inf, -np.inf], len(broken))
    graph = neighbours(
        embedding, features, COLUMNS, radius=0.5, limit=5, cuts=NO_CUTS, library=library(variant)
    )
    expected = reference(
        embedding[finite], features[finite], COLUMNS, radius=0.5, limit=5, cuts=NO_CUTS
    )
    np.testing.assert_array_equal(graph.edges, finite[expected.edges])


@each_variant
@pytest.mark.parametrize("embedding", [np.nan, np.inf, 3e38])
def test_no_embedding_is_too_strange(variant, embedding):
    points = np.full((300, 3), embedding, np.float32)
    points[::2] *= -1
    graph = neighbours(
        points, hits(300), COLUMNS, radius=1e-30, limit=3, cuts=CUTS, library=library(variant)
    )
    assert graph.edges.shape[0] == 2


@each_variant
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("cuts", [CUTS, DoubletCuts(slope=1e-3), DoubletCuts(z0=99.0)])
def test_cuts_on_boxes_drop_no_pair_of_strange_hits(variant, cuts):
    """At the beam line, behind it, far outside, and azimuths of more than a turn."""
    features = hits(800)
    rng = np.random.default_rng(2)
    for column, strange in (
        (0, [0.0, -0.2, 1e-22, 3e16, 1e30]),
        (1, [-2.5, 3.0, 40.0]),
        (2, [1e20]),
    ):
        rows = rng.choice(800, 60, replace=False)
        features[rows, column] = np.resize(np.array(strange, np.float32), 60)
    features = features[reference_order(features, COLUMNS)]
    graph = check_equal(clusters(800, 3), features, variant, radius=2.0, limit=800, cuts=cuts)
    assert graph.edges.shape[1] > 1000


@each_variant
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_canonical_order_equals_the_reference(variant, data):
    n = data.draw(st.integers(0, 60))
    steps = data.draw(arrays.arrays(np.int8, (n, 4), elements=st.integers(-2, 2)))
    columns = FeatureColumns(("r", "phi", "z", "charge"), (1.0, 1.0, 1.0, 1.0), {})
    features = steps.astype(np.float32) * np.float32(0.3)
    np.testing.assert_array_equal(
        canonical_order(features, columns, library(variant)),
        reference_order(features, columns),
    )
