"""Joining edges to triplets, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trackserve.errors import BundleError
from trackserve.event import Graph
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.triplets import TripletCuts, TripletSettings, join_edges, keep_triplets

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, np.pi, 1000.0), {})


def graph_of(hits, edges) -> Graph:
    """A graph of hits given as r (mm), phi (rad), z (mm)."""
    features = np.float32(hits) / np.float32(COLUMNS.scales)
    return Graph(features, np.array(edges, np.int64).reshape(-1, 2).T.copy())


# A straight track 0-1-2-3, and a hit 4 off its line along the beam, 5 off it in azimuth.
HITS = [(100, 0, 0), (200, 0, 50), (300, 0, 100), (400, 0, 150), (300, 0, 300), (300, 0.5, 100)]
EDGES = [(0, 1), (1, 2), (1, 4), (1, 5), (2, 3)]


def test_without_cuts_all_edges_that_meet_are_joined():
    triplets = join_edges(graph_of(HITS, EDGES), COLUMNS, TripletCuts())
    assert triplets.T.tolist() == [[0, 1], [0, 2], [0, 3], [1, 4]]


def test_a_kink_along_the_beam_is_cut():
    triplets = join_edges(graph_of(HITS, EDGES), COLUMNS, TripletCuts(kink=0.1, off=1.0))
    assert triplets.T.tolist() == [[0, 1], [0, 3], [1, 4]]


def test_a_turn_about_the_beam_line_is_cut():
    triplets = join_edges(graph_of(HITS, EDGES), COLUMNS, TripletCuts(slope=1e-4, dphi=0.002))
    assert triplets.T.tolist() == [[0, 1], [0, 2], [1, 4]]


def test_the_seam_of_the_azimuth_is_no_turn():
    hits = [(100, np.pi - 1e-3, 0), (200, -np.pi + 1e-3, 0), (300, -np.pi + 3e-3, 0)]
    cuts = TripletCuts(slope=1e-5, dphi=1e-4)
    assert join_edges(graph_of(hits, [(0, 1), (1, 2)]), COLUMNS, cuts).T.tolist() == [[0, 1]]


def test_edges_without_a_kept_triplet_are_dropped_and_the_others_renumbered():
    graph = graph_of(HITS, EDGES)
    triplets = join_edges(graph, COLUMNS, TripletCuts())
    kept = keep_triplets(graph, triplets, np.float32([-1, -1, 0.5, 2]), np.float32(0.5))
    assert kept.edges.T.tolist() == [[0, 1], [1, 2], [1, 5], [2, 3]]
    assert kept.triplets.T.tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("chain", "edges"), [(2, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (5, [])]
)
def test_edges_through_which_no_long_chain_runs_are_dropped(chain, edges):
    """A chain of the edges 0, 1, 2, 3, and one of 4, 5 with a fork to 6."""
    ends = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (6, 7), (6, 8)]).T
    graph = Graph(np.zeros((9, 3), np.float32), ends)
    triplets = np.array([(0, 1), (1, 2), (2, 3), (4, 5), (4, 6)]).T
    kept = keep_triplets(graph, triplets, np.zeros(5, np.float32), np.float32(0), chain)
    np.testing.assert_array_equal(kept.edges, ends[:, edges])
    assert kept.triplets.shape[1] == (5 if chain == 2 else max(0, len(edges) - 1))


def test_no_edges_give_no_triplets():
    graph = graph_of(HITS, [])
    triplets = join_edges(graph, COLUMNS, TripletCuts(kink=0.1))
    assert triplets.shape == (2, 0)
    kept = keep_triplets(graph, triplets, np.empty(0, np.float32), np.float32(0))
    assert kept.edges.shape == kept.triplets.shape == (2, 0)


@pytest.mark.parametrize("cuts", [{"kink": 0.0}, {"slope": -1.0}, {"off": -1.0}])
def test_cuts_that_mean_nothing_are_refused(cuts):
    with pytest.raises(BundleError, match="triplet cuts are"):
        TripletCuts(**cuts)


def test_a_cut_outside_0_to_1_is_refused():
    with pytest.raises(BundleError, match=r"triplets\.cut is 1"):
        TripletSettings(TripletCuts(), 1.0)


@pytest.mark.parametrize("chain", [1, 101])
def test_a_chain_of_fewer_than_two_edges_is_refused(chain):
    with pytest.raises(BundleError, match=rf"triplets\.chain is {chain}; expected edges, from 2"):
        TripletSettings(TripletCuts(), 0.5, chain)
