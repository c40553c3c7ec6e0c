from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.stages import join_edges
from trackserve.event import Graph
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.triplets import TripletCuts, keep_triplets
from trackserve.pipeline.triplets import join_edges as reference

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.0, 1000.0), {})
CUTS = TripletCuts(kink=0.05, off=3.0, slope=3e-4, dphi=2e-3)
ALL_CUTS = [TripletCuts(), CUTS, TripletCuts(kink=0.05), TripletCuts(slope=3e-4, dphi=0.01)]

each_variant = pytest.mark.parametrize("variant", variants())


def random_graph(features: np.ndarray, edges: int, rng: np.random.Generator) -> Graph:
    """Edges between any hits, each once, sorted as neighbours gives them."""
    ends = np.sort(rng.integers(len(features), size=(2, edges)), axis=0)
    return Graph(features, np.unique(ends[:, ends[0] < ends[1]], axis=1))


@each_variant
@pytest.mark.parametrize("cuts", ALL_CUTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_triplets_equal_the_reference(variant, cuts, threads):
    rng = np.random.default_rng(0)
    low, high = (0.03, -1.05, -1), (1, 1.05, 1)  # some steps cross the seam at +-pi
    features = np.sort(rng.uniform(low, high, (700, 3)).astype(np.float32), axis=0)
    rng.shuffle(features[:, 1])
    graph = random_graph(features, 9000, rng)
    found = join_edges(graph, COLUMNS, cuts, threads=threads, library=library(variant))
    expected = reference(graph, COLUMNS, cuts)
    np.testing.assert_array_equal(found, expected)
    assert found.shape[1] > 100
    assert (
        cuts == TripletCuts() or found.shape[1] < reference(graph, COLUMNS, TripletCuts()).shape[1]
    )


@each_variant
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_triplets_equal_the_reference_on_a_grid(variant, data):
    """On a grid hits coincide, and triplets lie exactly at the cuts."""
    n = data.draw(st.integers(1, 30))
    steps = data.draw(arrays.arrays(np.int8, (n, 3), elements=st.integers(-3, 3)))
    features = steps.astype(np.float32) * np.float32(data.draw(st.sampled_from([0.25, 0.1, 1e10])))
    graph = random_graph(features, 4 * n, np.random.default_rng(data.draw(st.integers(0, 9))))
    cuts = data.draw(st.sampled_from([*ALL_CUTS, TripletCuts(kink=0.5, slope=1e-3)]))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference(graph, COLUMNS, cuts)
        found = join_edges(graph, COLUMNS, cuts, library=library(variant))
    np.testing.assert_array_equal(found, expected)


@each_variant
@pytest.mark.parametrize("cuts", ALL_CUTS)
def test_numbers_that_are_not_finite_pass_no_cut(variant, cuts):
    features = np.full((20, 3), 0.5, np.float32)
    features[::3] = [[np.nan], [np.inf], [-np.inf], [3e38], [np.nan], [0], [0]]
    graph = random_graph(features, 100, np.random.default_rng(0))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference(graph, COLUMNS, cuts)
        found = join_edges(graph, COLUMNS, cuts, library=library(variant))
    np.testing.assert_array_equal(found, expected)


@each_variant
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_kept_chains_equal_the_reference(variant, data):
    edges = data.draw(st.integers(1, 20))
    count = data.draw(st.integers(0, 40))
    triplets = data.draw(arrays.arrays(np.int64, (2, count), elements=st.integers(0, edges - 1)))
    chain = data.draw(st.integers(2, 6))
    ends = np.random.default_rng(0).integers(9, size=(2, edges))
    graph, all_pass = Graph(np.zeros((9, 3), np.float32), ends), np.zeros(count, np.float32)
    expected = keep_triplets(graph, triplets, all_pass, np.float32(0), chain)
    found, kept = library(variant).keep_chains(
        tuple(ends.astype(np.int32)), tuple(triplets.astype(np.int32)), chain
    )
    np.testing.assert_array_equal(np.stack(found), expected.edges)
    np.testing.assert_array_equal(np.stack(kept), expected.triplets)


@each_variant
def test_kept_edges_are_sorted_by_their_inner_hit(variant):
    rng = np.random.default_rng(0)
    inner, outer = rng.integers(50, size=(2, 400)).astype(np.int32)
    logits = rng.normal(size=400).astype(np.float32)
    logits[::7] = np.nan
    logits[3] = 0.25
    kept = library(variant).keep_edges(logits, 0.25, (inner, outer), 50)
    order = np.argsort(inner, kind="stable")
    order = order[logits[order] >= 0.25]
    np.testing.assert_array_equal(np.stack(kept), np.stack([inner[order], outer[order]]))
