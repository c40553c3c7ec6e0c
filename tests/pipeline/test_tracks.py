"""Tracks built with the help of the fit, on a few particles."""

from __future__ import annotations

import numpy as np
import pytest

from fitted_tracks import COLUMNS, FLAT, crowded, event, helix, stage
from trackserve.errors import BundleError, InputError
from trackserve.event import ScoredGraph
from trackserve.pipeline.components import TrackBuilder
from trackserve.pipeline.extending import MOST_TRIED
from trackserve.pipeline.tracks import TrackStage, find_tracks
from trackserve.track_table import TRACK_COLUMNS, TrackTable

PARTICLES = [
    helix(1.0, 1, phi=0.2, cot=0.4),
    helix(0.6, -1, phi=-2.0, cot=-0.8, z0=5.0),
    helix(3.0, -1, phi=3.1, cot=1.2, z0=-3.0),
]


@pytest.mark.parametrize("broken", [1, 4, 7])
def test_a_broken_track_is_joined(broken):
    graph, owner = event(PARTICLES, broken={0: broken, 1: broken})
    apart = find_tracks(graph, stage()).labels
    assert len(set(apart[owner == 0].tolist())) == 2
    joined = find_tracks(graph, stage(join=30.0)).labels
    for particle in range(3):
        assert len(set(joined[owner == particle].tolist())) == 1
    assert set(joined.tolist()) == {0, 1, 2}


def test_pieces_of_two_particles_are_not_joined():
    inner = helix(1.0, 1, phi=0.2, cot=0.4)[:5]
    outer = helix(1.0, -1, phi=0.25, cot=0.3)[5:]
    graph, owner = event([inner, outer])
    labels = find_tracks(graph, stage(join=30.0)).labels
    assert set(labels[owner == 0].tolist()) != set(labels[owner == 1].tolist())


def test_what_is_of_too_little_quality_is_dropped_and_numbers_have_no_gap():
    graph, _ = event(PARTICLES, noise=120)
    everything = find_tracks(graph, stage(join=30.0), parameters=True)
    good = find_tracks(graph, stage(join=30.0, min_quality=0.5), parameters=True)
    assert everything.parameters is not None
    assert good.parameters is not None
    kept = np.flatnonzero(everything.parameters.quality >= 0.5)
    assert 0 < len(kept) < len(everything)
    np.testing.assert_array_equal(good.parameters.matrix(), everything.parameters.matrix()[kept])
    for new, old in enumerate(kept.tolist()):
        np.testing.assert_array_equal(good.labels == new, everything.labels == old)


def test_the_table_says_what_the_particles_were():
    graph, owner = event(PARTICLES)
    tracks = find_tracks(graph, stage(), parameters=True)
    table = tracks.parameters
    assert table is not None
    rows = [int(tracks.labels[owner == particle][0]) for particle in range(3)]
    np.testing.assert_allclose(table.pt[rows], [1.0, 0.6, 3.0], rtol=0.01)
    np.testing.assert_array_equal(table.charge[rows], [1, -1, -1])
    np.testing.assert_allclose(table.eta[rows], np.arcsinh([0.4, -0.8, 1.2]), atol=2e-3)
    np.testing.assert_allclose(table.phi[rows], [0.2, -2.0, 3.1], atol=2e-3)
    np.testing.assert_allclose(table.z0[rows], [0, 5, -3], atol=0.1)
    np.testing.assert_array_equal(table.hits, [10, 10, 10])
    assert ((table.quality > 0) & (table.quality <= 1)).all()


def test_labels_do_not_depend_on_whether_parameters_are_wanted():
    graph, _ = event(PARTICLES, broken={2: 3}, noise=60)
    chosen = stage(join=30.0, min_quality=0.1)
    with_table = find_tracks(graph, chosen, parameters=True)
    np.testing.assert_array_equal(with_table.labels, find_tracks(graph, chosen).labels)


def test_no_hits_and_no_edges():
    for hits in (0, 4):
        nothing = ScoredGraph(
            np.zeros((hits, 3), np.float32), np.empty((2, 0), np.int64), np.empty(0, np.float32)
        )
        tracks = find_tracks(nothing, stage(join=30.0, min_quality=0.2), parameters=True)
        assert tracks.labels.tolist() == [-1] * hits
        assert tracks.parameters is not None
        assert tracks.parameters.matrix().shape == (0, len(TRACK_COLUMNS))


def test_hits_all_in_one_place_are_no_error():
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 4]], np.int64)
    graph = ScoredGraph(np.zeros((5, 3), np.float32), edges, np.ones(4, np.float32))
    assert len(find_tracks(graph, stage(join=30.0), parameters=True)) == 1


def test_parameters_need_a_fit():
    graph, _ = event(PARTICLES)
    with pytest.raises(InputError, match=r"no \[fit\]"):
        find_tracks(graph, TrackStage(COLUMNS, TrackBuilder("walk", 0.1, 3)), parameters=True)


def test_without_a_quality_model_quality_is_not_known():
    graph, _ = event(PARTICLES)
    tracks = find_tracks(
        graph, TrackStage(COLUMNS, TrackBuilder("walk", 0.1, 3), FLAT), parameters=True
    )
    assert tracks.parameters is not None
    assert np.isnan(tracks.parameters.quality).all()


def test_a_table_of_another_width_is_refused():
    with pytest.raises(InputError, match=r"shape \[3, 9\]; expected \[T, 14\]"):
        TrackTable.from_matrix(np.zeros((3, 9), np.float32))


def test_a_track_takes_the_hits_beyond_its_ends():
    """Of each particle the edges of its first and its last two hits are missing."""
    graph, owner = event(PARTICLES, noise=60)
    inside = np.ones(graph.edges.shape[1], bool)
    for particle in range(3):
        rows = np.flatnonzero(owner == particle)
        ends = {rows[0], *rows[-2:]}
        inside &= ~np.isin(graph.edges, list(ends)).any(axis=0)
    cut = ScoredGraph(graph.features, graph.edges[:, inside], graph.scores[inside])
    short = find_tracks(cut, stage(min_quality=0.1))
    whole = find_tracks(cut, stage(min_quality=0.1, extend=0.0025), parameters=True)
    assert whole.parameters is not None
    assert len(short) == len(whole) == 3
    for particle in range(3):
        rows = np.flatnonzero(owner == particle)
        assert (short.labels[rows[[0, -1]]] == -1).all()
        assert len(set(whole.labels[rows].tolist())) == 1
        assert whole.parameters.hits[whole.labels[rows[0]]] == len(rows)
    assert (whole.labels[owner < 0] == -1).all()
    firsts = [np.flatnonzero(whole.labels == track)[0] for track in range(3)]
    assert firsts == sorted(firsts), "tracks are numbered by their innermost hit"
    np.testing.assert_allclose(sorted(whole.parameters.pt), [0.6, 1.0, 3.0], rtol=0.01)


def test_a_hit_goes_to_the_track_that_it_fits_best():
    near = helix(1.0, 1, phi=0.2, cot=0.4)
    beside = helix(1.0, 1, phi=0.2015, cot=0.4)
    graph, owner = event([near, beside[:-1]], broken={0: len(near) - 2})
    labels = find_tracks(graph, stage(extend=0.0025)).labels
    last = np.flatnonzero(owner == 0)[-1]
    assert labels[last] == labels[np.flatnonzero(owner == 0)[0]]


@pytest.mark.parametrize(("beside", "taken"), [(MOST_TRIED // 2, True), (MOST_TRIED + 1, False)])
def test_a_track_tries_no_more_hits_than_bound_its_work(beside, taken):
    graph, owner = crowded(beside)
    labels = find_tracks(graph, stage(extend=0.0025)).labels
    assert (labels[owner == 0] == 0).all()
    assert (labels[owner == 1] == 0).all() == taken
    assert (labels[owner > 1] == -1).all()


def test_an_event_of_hits_far_out_and_on_the_beam_line_is_no_error():
    graph, _ = event([helix(1.0, 1, phi=0.2, cot=0.4)])
    features = graph.features.copy()
    features[-2:, 0], features[:1, 0] = 1e30, 0.0
    tracks = find_tracks(ScoredGraph(features, graph.edges, graph.scores), stage(extend=0.0025))
    assert len(tracks.labels) == len(features)


@pytest.mark.parametrize("extend", [-0.1, 1.0, float("nan")])
def test_extend_is_a_share(extend):
    with pytest.raises(BundleError, match="extend"):
        stage(extend=extend)
