from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from known_networks import WITH_SHAPES, made_up_event
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.event import Graph, ScoredGraph
from trackserve.pipeline import components as reference_tracks
from trackserve.pipeline import triplets as reference_triplets
from trackserve.pipeline.budget import Budget
from trackserve.pipeline.components import TrackBuilder
from trackserve.pipeline.features import FeatureColumns, canonical_order
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.pipeline.neighbours import neighbours as reference_neighbours
from trackserve.pipeline.tracks import TrackStage
from trackserve.pipeline.triplets import TripletCuts

pytest.importorskip("triton")
from trackserve.engines.gpu import (
    agreement,
    components,
    lists,
    neighbours,
    order,
    tracks,
    triplets,
    weights,
)
from trackserve.engines.gpu.lists import Pairs, Room

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.2, 1000.0), {})
CARTESIAN = FeatureColumns(("x", "y", "z"), (1000.0, 1000.0, 1000.0), {})
ROOM = Room(2**30, "cpu")
LOOSE = DoubletCuts()
TIGHT = DoubletCuts(slope=4e-3, z0=300.0, dphi=0.1, dcot=0.05)


def random_features(hits, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.random((hits, 3), np.float32)
    features[:, 1] = rng.uniform(-np.pi / 3.2, np.pi / 3.2, hits)
    features[:, 2] -= np.float32(0.5)
    return features


def on_device(features, columns=COLUMNS):
    given, position = order.upload(features, columns, "cpu")
    return order.canonical_order(given, position, torch.zeros(len(features), dtype=torch.int32))


def as_array(pairs):
    return np.stack([pairs.first.numpy(), pairs.second.numpy()])


def as_pairs(array):
    entries = (torch.from_numpy(array[0]) << 32) | torch.from_numpy(array[1])
    return Pairs(entries, torch.tensor([len(entries)]))


@pytest.mark.parametrize("columns", [COLUMNS, CARTESIAN])
def test_canonical_order_with_hits_at_one_distance(columns):
    features = random_features(500)
    features[100:200] = features[:100]
    features[200:300, 0] = features[:100, 0]
    features[200:300, 2] = -features[:100, 2]
    features[300:310] = 0.0
    features[305:310, 1] = -0.0
    expected = canonical_order(features, columns)
    np.testing.assert_array_equal(on_device(features, columns).row.numpy(), expected)


@pytest.mark.parametrize(
    ("limit", "cuts", "dimension"), [(1, LOOSE, 8), (4, TIGHT, 3), (1000, LOOSE, 3)]
)
def test_neighbours_are_those_of_the_tree(limit, cuts, dimension):
    features = random_features(400)
    hits = on_device(features)
    features = features[hits.row.numpy()]
    rng = np.random.default_rng(1)
    points = rng.integers(0, 4, (400, dimension)).astype(np.float32)  # many at exactly the radius
    points[:200] += rng.normal(scale=0.2, size=(200, dimension)).astype(np.float32)
    points[7], points[9, 1] = np.nan, np.inf
    expected = reference_neighbours(points, features, COLUMNS, radius=2.0, limit=limit, cuts=cuts)
    found = neighbours.neighbours(
        torch.from_numpy(points), hits, radius=2.0, limit=limit, cuts=cuts, room=ROOM
    )
    np.testing.assert_array_equal(as_array(lists.sort(found)), expected.edges)
    assert expected.edges.shape[1] > 50


def test_no_tile_that_holds_pairs_is_passed_over():
    """Far more tiles than one, in azimuth across the seam, with cuts that exclude most of them."""
    features = random_features(900, seed=3)
    hits = on_device(features)
    r, phi, z = features[hits.row].T
    points = np.stack([r, z, np.cos(3.2 * phi), np.sin(3.2 * phi)], axis=1)
    cuts = DoubletCuts(slope=5e-4, z0=50.0, dphi=0.01, dcot=0.01)
    expected = reference_neighbours(
        points, features[hits.row], COLUMNS, radius=0.5, limit=1000, cuts=cuts
    )
    found = neighbours.neighbours(
        torch.from_numpy(points), hits, radius=0.5, limit=1000, cuts=cuts, room=ROOM
    )
    np.testing.assert_array_equal(as_array(lists.sort(found)), expected.edges)
    crossing = np.abs(np.diff(hits.position[1].numpy()[expected.edges], axis=0)) > 6
    assert crossing.any()


@pytest.mark.parametrize(
    "cuts", [TripletCuts(), TripletCuts(kink=0.2, off=5.0, slope=1e-3, dphi=0.1)]
)
def test_joined_edges_are_the_references(cuts):
    features = random_features(300)
    hits = on_device(features)
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(rng.integers(0, 300, (2, 2000)), axis=0), axis=1)
    edges = np.ascontiguousarray(edges[:, edges[0] < edges[1]])
    graph = Graph(features[hits.row.numpy()], edges)
    expected = reference_triplets.join_edges(graph, COLUMNS, cuts)
    found = triplets.join_edges(
        as_pairs(edges), hits.position, cuts, room=ROOM, limits=Budget().limits(300)
    )
    np.testing.assert_array_equal(as_array(lists.sort(found)), expected)
    assert expected.shape[1] > 50


@pytest.mark.parametrize("chain", [2, 3, 5])
def test_chains_are_the_references(chain):
    rng = np.random.default_rng(chain)
    edges = np.stack([np.arange(400), np.arange(1, 401)])
    linked = np.unique(np.sort(rng.integers(0, 400, (2, 500)), axis=0), axis=1)
    linked = np.ascontiguousarray(linked[:, linked[0] < linked[1]])
    graph = Graph(np.zeros((401, 3), np.float32), edges)
    logits = np.ones(linked.shape[1], np.float32)
    expected = reference_triplets.keep_triplets(graph, linked, logits, np.float32(0), chain)
    found = triplets.keep_chains(as_pairs(edges), as_pairs(linked), chain)
    np.testing.assert_array_equal(np.stack([found.inner, found.outer]), expected.edges)
    np.testing.assert_array_equal(np.stack([found.one, found.other]), expected.triplets)
    assert expected.triplets.shape[1]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("embedding", {"width": 48, "layers": 1, "dimension": 3}),
        ("filter", {"width": 48, "layers": 3}),
        ("triplets", {"width": 16, "layers": 2}),
        ("gnn", {"width": 48, "steps": 3}),
    ],
)
def test_networks_of_other_widths_and_with_further_features(numbers, kind, sizes):
    made, path = numbers(kind, **sizes)
    columns = WITH_SHAPES
    features, (inner, outer), _ = made_up_event(columns, hits=60, edges=150)
    linked = np.nonzero(outer[:, None] == inner)
    given = [torch.from_numpy(features)]
    pairs = [
        tuple(torch.from_numpy(rows.astype(np.int64)) for rows in ends)
        for ends in ((inner, outer), linked)
    ]
    if kind != "embedding":
        given.append(torch.stack(pairs[0]))
    if kind in {"triplets", "gnn"}:
        given.append(torch.stack(pairs[1]))
    with torch.no_grad():
        expected = made(*given)
    network = weights.read_network(path, precision="float32", device="cpu", backend="interpreter")
    found = agreement.answer(network, given[0], columns, *pairs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


@st.composite
def scored_graphs(draw):
    """Graphs with many equal scores, stars, chains of falling scores."""
    hits = draw(st.integers(1, 25))
    pair = st.tuples(st.integers(0, hits - 1), st.integers(0, hits - 1))
    edges = sorted({(min(p), max(p)) for p in draw(st.lists(pair, max_size=80)) if p[0] != p[1]})
    score = st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.75, 1.0])
    scores = draw(st.lists(score, min_size=len(edges), max_size=len(edges)))
    return hits, np.array(edges, np.int64).reshape(-1, 2).T, np.array(scores, np.float32)


@settings(deadline=None, max_examples=60)
@given(scored_graphs(), st.sampled_from(["walk", "components"]), st.integers(1, 4))
def test_tracks_are_those_of_the_sequential_walk(graph, method, min_hits):
    hits, edges, scores = graph
    builder = TrackBuilder(method, 0.25, min_hits)
    scored = ScoredGraph(np.zeros((hits, 3), np.float32), np.ascontiguousarray(edges), scores)
    expected = reference_tracks.build_tracks(scored, builder).labels
    finder = tracks.TrackFinder(TrackStage(COLUMNS, builder), "cpu")
    hits = on_device(np.zeros((hits, 3), np.float32))
    ends = tuple(torch.from_numpy(scored.edges))
    found = finder(hits, ends, torch.from_numpy(scores), ROOM, events=1, wanted=LABELS_ONLY).labels
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_long_chain_of_rising_scores_is_walked():
    """Each edge waits for the next: the worst case of taking all that are best at once."""
    steps = np.arange(600)
    edges = np.stack([steps // 2, 301 + (steps + 1) // 2])
    scores = np.linspace(0.5, 1.0, 600).astype(np.float32)
    expected = reference_tracks.best_steps(edges, scores)
    inner, outer = torch.from_numpy(edges)
    taken = components.taken_edges(
        inner, outer, torch.from_numpy(scores), TrackBuilder("walk", 0.0)
    )
    np.testing.assert_array_equal(taken.numpy(), expected)
