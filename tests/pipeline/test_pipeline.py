"""The way of an event, stage by stage and whole, on a bundle of random networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trackserve.pipeline.filter
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.engines.reference import ReferencePipeline
from trackserve.event import NO_TRACK, Graph, Hits, TripletGraph
from trackserve.pipeline.features import feature_matrix, hit_features
from trackserve.pipeline.filter import filter_logits, keep_edges, least_logit
from trackserve.pipeline.gnn import gnn_logits, score_edges, scores_of
from trackserve.pipeline.networks import load_network


@pytest.fixture(scope="module", params=["components", "walk"])
def pipeline(request, tmp_path_factory) -> ReferencePipeline:
    folder = tmp_path_factory.mktemp("bundle") / request.param
    # Of these weights, tracks of some and of many hits come out.
    return ReferencePipeline(write_tiny_bundle(folder, radius=0.3, method=request.param, seed=13))


HITS = straight_tracks(tracks=40, noise=60)


def test_what_each_stage_gives_fits_the_next(pipeline):
    features = hit_features(HITS, pipeline.bundle.features)
    out = pipeline.run(features)
    np.testing.assert_array_equal(out.candidates.features, features[out.order])
    assert out.embedding.shape == (len(HITS), 4)
    inner, outer = out.candidates.edges
    assert (inner < outer).all()
    distance = np.linalg.norm(out.embedding[inner] - out.embedding[outer], axis=1)
    assert distance.max() <= 0.3 + 1e-6
    candidates, filtered = (set(map(tuple, g.edges.T)) for g in (out.candidates, out.filtered))
    assert 10 < len(filtered) < len(candidates)
    assert filtered <= candidates
    np.testing.assert_array_equal(out.scored.edges, out.filtered.edges)
    assert ((out.scored.scores >= 0) & (out.scored.scores <= 1)).all()
    labels = pipeline.find_tracks(HITS).labels
    np.testing.assert_array_equal(labels, out.labels())
    np.testing.assert_array_equal(labels[out.order], out.tracks.labels)
    assert len(out.tracks) > 5


@pytest.mark.parametrize(
    "positions",
    [
        pytest.param(np.zeros((0, 3)), id="no hit"),
        pytest.param(np.ones((1, 3)), id="one hit"),
        pytest.param(np.zeros((1, 3)), id="one hit at the origin"),
        pytest.param(np.full((50, 3), 100.0), id="all hits identical"),
        pytest.param(np.zeros((50, 3)), id="all hits at the origin"),
        pytest.param(np.diag([3e4, 3e5, 3e6]), id="hits far apart"),
    ],
)
def test_an_event_without_tracks_gets_an_empty_answer(pipeline, positions):
    tracks = pipeline.find_tracks(Hits.from_positions(positions))
    assert len(tracks) == 0
    assert tracks.labels.tolist() == [NO_TRACK] * len(positions)


def test_noise_alone_gets_an_empty_answer(tmp_path):
    """Hits scattered over the embedding have no neighbours within a small radius."""
    pipeline = ReferencePipeline(write_tiny_bundle(tmp_path / "bundle", radius=1e-4))
    hits = straight_tracks(tracks=0, noise=200)
    out = pipeline.run(hit_features(hits, pipeline.bundle.features))
    assert out.candidates.edges.shape == out.filtered.edges.shape == (2, 0)
    assert out.scored.scores.shape == (0,)
    assert out.labels().tolist() == [NO_TRACK] * 200


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), data=st.data())
def test_permuting_the_hits_only_renumbers_the_tracks(pipeline, seed, data):
    """Labels are those of the same hits, exactly: even the numbers, which go by position."""
    hits = straight_tracks(tracks=12, noise=20, seed=seed)
    order = np.array(data.draw(st.permutations(range(len(hits)))))
    np.testing.assert_array_equal(
        pipeline.find_tracks(hits.select(order)).labels, pipeline.find_tracks(hits).labels[order]
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000))
def test_hits_may_coincide(pipeline, seed):
    """Of identical hits, it may be either that a track takes; together they are the same hits."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(HITS), 150)
    positions = HITS.table(("x", "y", "z"))[rows]
    order = rng.permutation(len(rows))
    found = pipeline.find_tracks(Hits.from_positions(positions)).labels
    again = pipeline.find_tracks(Hits.from_positions(positions[order])).labels

    def multiset(labels, rows):
        return sorted(zip(labels.tolist(), rows.tolist(), strict=True))

    assert multiset(found, rows) == multiset(again, rows[order])


def test_threads_change_nothing(pipeline):
    hits = straight_tracks(tracks=300, noise=1000, seed=3)
    expected = pipeline.find_tracks(hits).labels
    threaded = ReferencePipeline(pipeline.bundle, threads=3)
    for _ in range(3):
        np.testing.assert_array_equal(threaded.find_tracks(hits).labels, expected)


def test_turning_an_event_changes_no_edge_where_the_embedding_turns_with_it(tmp_path):
    """Networks that don't see the azimuth: its scale takes it out of their sight."""
    bundle = write_tiny_bundle(tmp_path / "bundle", radius=0.3)
    text = (bundle.path / "bundle.toml").read_text()
    (bundle.path / "bundle.toml").write_text(
        text.replace("3.2", "1e9").replace(
            "limit = 4", "limit = 4\n[neighbours.cuts]\nslope = 5e-3"
        )
    )
    pipeline = ReferencePipeline(read_bundle(bundle.path))
    assert pipeline.bundle.features.scales == (1000.0, 1e9, 1000.0)
    hits = straight_tracks(tracks=40, noise=60)
    x, y, z = hits.x.astype(np.float64), hits.y.astype(np.float64), hits.z
    edges = []
    for angle in (0.0, 0.5, 3.0):
        turned = np.stack(
            [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z],
            axis=1,
        )
        features = hit_features(Hits.from_positions(turned), pipeline.bundle.features)
        out = pipeline.run(features)
        edges.append({tuple(sorted(e)) for e in out.order[out.candidates.edges].T.tolist()})
    assert len(edges[0]) > 20
    for other in edges[1:]:
        # Rounding may move a pair across a bound.
        assert len(edges[0] ^ other) <= 0.02 * len(edges[0])


def test_coordinates_beyond_any_detector(pipeline):
    for size in (1e6, 1e9, 1e15):
        positions = HITS.table(("x", "y", "z")) * np.float32(size)
        assert len(pipeline.find_tracks(Hits.from_positions(positions)).labels) == len(HITS)


def test_absent_columns_are_filled_in_process_as_on_the_wire(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle", features=12, radius=2.0)
    spec, pipeline = bundle.features, ReferencePipeline(bundle)
    bare = HITS.table(("x", "y", "z"))
    expected = pipeline.find_tracks_from_features(feature_matrix(bare, spec)).labels
    found = pipeline.find_tracks(Hits.from_positions(bare)).labels
    np.testing.assert_array_equal(found, expected)


# ---- filter and GNN alone


@pytest.fixture(scope="module")
def graph(pipeline) -> Graph:
    return pipeline.run(hit_features(HITS, pipeline.bundle.features)).candidates


def test_no_edges(pipeline, graph):
    none = Graph(graph.features, np.empty((2, 0), np.int64))
    for path in (pipeline.bundle.filter_path, pipeline.bundle.gnn_path):
        network = load_network(path, threads=1)
        for logits in (filter_logits(network, none), gnn_logits(network, none)):
            assert logits.shape == (0,)
            assert logits.dtype == np.float32
    assert keep_edges(none, np.empty(0, np.float32), 0.5).edges.shape == (2, 0)
    assert score_edges(network, none).scores.shape == (0,)


def test_two_threads_change_no_sum_over_a_graph():
    shipped = read_bundle()
    random = np.random.default_rng(1)
    features = random.uniform(0.1, 1, (2000, len(shipped.features.columns))).astype(np.float32)
    edges = np.sort(random.integers(0, 2000, (2, 30_000)), axis=0)
    graph = TripletGraph(features, edges, random.integers(0, 30_000, (2, 60_000)))
    alone = gnn_logits(load_network(shipped.gnn_path, threads=1), graph)
    together = gnn_logits(load_network(shipped.gnn_path, threads=2), graph)
    np.testing.assert_array_equal(together, alone)


def test_filter_in_parts_equals_the_whole(pipeline, graph, monkeypatch):
    network = load_network(pipeline.bundle.filter_path, threads=1)
    whole = filter_logits(network, graph)
    monkeypatch.setattr(trackserve.pipeline.filter, "EDGES_AT_ONCE", 13)
    np.testing.assert_allclose(filter_logits(network, graph), whole, rtol=1e-5, atol=1e-6)


@given(st.floats(0.001, 0.999))
def test_the_cut_on_logits_is_the_cut_on_scores(cut):
    assert 1 / (1 + np.exp(-np.float64(least_logit(cut)))) == pytest.approx(cut, rel=1e-5)


def test_an_edge_at_the_cut_is_kept():
    edges = np.array([[0, 0, 1], [1, 2, 2]])
    features = np.zeros((3, 3), np.float32)
    logits = np.array(
        [np.nextafter(least_logit(0.2), np.float32(-9)), least_logit(0.2), np.nan], np.float32
    )
    assert keep_edges(Graph(features, edges), logits, 0.2).edges.tolist() == [[0], [2]]


def test_scores_are_the_logistic_function_and_never_overflow():
    logits = np.array([-1e30, -3, 0, 3, 1e30, np.inf, -np.inf], np.float32)
    scores = scores_of(logits)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(
        scores, [0, 0.04742587, 0.5, 0.95257413, 1, 1, 0], rtol=1e-6, atol=1e-12
    )
