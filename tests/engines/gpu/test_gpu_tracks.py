"""The last stage on the device against the reference: joining, fit, quality, extending, in batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitted_tracks import FALLING, FLAT, RADII, event, helix, stage
from trackserve.contract.wanted import Wanted
from trackserve.errors import InputError
from trackserve.pipeline.fit import fit_tracks, points_of
from trackserve.pipeline.joining import Pieces
from trackserve.pipeline.tracks import find_tracks
from trackserve.track_table import TRACK_COLUMNS

pytest.importorskip("triton")
from trackserve.engines.gpu import extending, fit, order
from trackserve.engines.gpu.lists import Room
from trackserve.engines.gpu.tracks import TrackFinder

ROOM = Room(2**28, "cpu")


def found_on_device(graphs, track_stage, *, parameters=True, room=ROOM):
    features = np.concatenate([graph.features for graph in graphs])
    sizes = [len(graph.features) for graph in graphs]
    begins = np.cumsum([0, *sizes])
    number = torch.from_numpy(np.repeat(np.arange(len(graphs), dtype=np.int32), sizes))
    given, position = order.upload(features, track_stage.columns, "cpu")
    hits = order.canonical_order(given, position, number)
    assert torch.equal(hits.row, torch.arange(len(features)))
    ends = np.concatenate([g.edges + b for g, b in zip(graphs, begins, strict=False)], axis=1)
    scores = torch.from_numpy(np.concatenate([graph.scores for graph in graphs]))
    edges = tuple(torch.from_numpy(ends))
    finder = TrackFinder(track_stage, "cpu")
    return finder(hits, edges, scores, room, events=len(graphs), wanted=Wanted(parameters)), begins


def crossed(seed, tracks=16):
    """Circles of many momenta, half of them broken in two, some with few hits, and noise."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(tracks):
        radius, cot, z0 = rng.uniform(700, 6000) * rng.choice([-1, 1]), *rng.normal(size=2)
        turn = 2 * np.arcsin(np.array(RADII) / (2 * radius))
        phi = rng.uniform(-np.pi, np.pi) + turn / 2
        xyz = np.stack([RADII * np.cos(phi), RADII * np.sin(phi), 30 * z0 + cot * radius * turn])
        made.append(xyz.T + rng.normal(scale=0.01, size=xyz.T.shape))
    made[::5] = [each[:4] for each in made[::5]]
    broken = {i: int(rng.integers(0, 8)) for i in range(0, tracks, 2)}
    return event(made, broken, noise=30, seed=seed)[0]


def frayed(seed, tracks=6):
    """Tracks whose first or last hits have no edge, and hits on no track near those, many in a cell."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(tracks):
        pt, charge, phi = (
            rng.uniform(0.4, 3.0),
            int(rng.choice([-1, 1])),
            rng.uniform(-np.pi, np.pi),
        )
        xyz = helix(pt, charge, phi, rng.normal(), z0=30 * rng.normal(), settings=FALLING)
        xyz = xyz + rng.normal(scale=0.015, size=xyz.shape)
        inner, outer = rng.integers(0, 4, 2)
        made.append(xyz[inner : len(xyz) - outer])
        made += [hit[None] for hit in (*xyz[:inner], *xyz[len(xyz) - outer :])]
    alone = np.concatenate([each for each in made if len(each) == 1])
    made += list((alone + rng.normal(scale=20.0, size=alone.shape))[:, None])
    crowd = alone[0] + rng.uniform(-40, 40, (120, 3))
    return event([*made, *crowd[:, None]], noise=10, seed=seed)[0]


def assert_the_references(graphs, track_stage):
    """Labels, and all that is fitted, are the reference's, event by event; return them."""
    found, begins = found_on_device(graphs, track_stage)
    table, ends = found.parameters.numpy(), np.cumsum([0, *found.counts.tolist()])
    for i, graph in enumerate(graphs):
        expected = find_tracks(graph, track_stage, parameters=True)
        labels = found.labels[begins[i] : begins[i + 1]].numpy()
        np.testing.assert_array_equal(labels, expected.labels)
        right = expected.parameters.matrix()
        np.testing.assert_allclose(table[ends[i] : ends[i + 1]], right, rtol=1e-5, atol=1e-5)
    return found.labels.numpy(), table


@pytest.mark.parametrize("settings", [FLAT, FALLING])
@pytest.mark.parametrize(
    "builder",
    [
        {},
        {"join": 30.0, "min_quality": 0.3},
        {"min_quality": 0.3},
        {"join": 30.0, "min_quality": 0.3, "extend": 0.0025},
    ],
)
def test_tracks_of_a_batch_are_the_references(settings, builder):
    graphs = [crossed(seed) for seed in range(2)]
    _, table = assert_the_references(graphs, stage(settings, **builder))
    assert np.isfinite(table).all(axis=1).sum() > 20


@pytest.mark.parametrize(("events", "tracks_at_once"), [(4, extending.TRACKS_AT_ONCE), (2, 8)])
def test_extended_tracks_of_a_batch_are_the_references(monkeypatch, events, tracks_at_once):
    monkeypatch.setattr(extending, "TRACKS_AT_ONCE", tracks_at_once)
    none, _ = event([])
    graphs = [frayed(0), none, *(frayed(seed) for seed in range(1, events))]
    before, _ = assert_the_references(graphs, stage(FALLING, join=30.0, min_quality=0.1))
    with_more = stage(FALLING, join=30.0, min_quality=0.1, extend=0.0025)
    labels, _ = assert_the_references(graphs, with_more)
    assert ((labels >= 0).sum() - (before >= 0).sum()) > 8 * events
    assert (labels[before >= 0] != before[before >= 0]).any()  # a new innermost hit, a new number


def test_a_track_takes_no_hit_of_another_event():
    particle = helix(1.0, 1, phi=0.2, cot=0.4)
    whole, _ = event([particle[1:-1], particle[:1], particle[-1:]])
    without, _ = event([particle[1:-1]])
    the_rest, _ = event([particle[:1], particle[-1:]])
    extend = stage(extend=0.0025)
    labels, _ = assert_the_references([the_rest, without, the_rest, whole], extend)
    assert labels.tolist() == [-1, -1, *[0] * 8, -1, -1, *[0] * 10]


def test_a_hit_behind_too_many_in_its_cell_is_not_looked_at():
    particle = helix(1.0, 1, phi=0.2, cot=0.4)
    last, rng = particle[-1], np.random.default_rng(0)
    cell = extending.CELL * np.floor(last / extending.CELL)
    crowd = cell + rng.uniform(1, extending.CELL - 1, (2000, 3))
    crowd = crowd[np.linalg.norm(crowd, axis=1) < np.linalg.norm(last)]
    crowd = crowd[np.abs(crowd[:, 2] - last[2]) > 5][: extending.MOST_IN_CELLS + 10, None]
    chosen = stage(extend=0.0025)
    for beside, hits in (([], 10), (list(crowd), 9)):
        graph, owner = event([particle[:-1], last[None], *beside])
        labels, _ = assert_the_references([graph] * 2, chosen)
        assert (labels[: len(owner)][owner < 2] == 0).sum() == hits


def test_hits_beyond_the_farthest_cell_are_looked_up_as_by_the_reference():
    particle = helix(1.0, 1, phi=0.2, cot=0.4)
    far = [np.array([[1.0, sign, 2.0]]) * sign * size for sign in (-1, 1) for size in (1e9, 1e15)]
    graph, _ = event([particle[:-1], particle[-1:], *far])
    labels, _ = assert_the_references([graph] * 2, stage(extend=0.0025))
    assert (labels >= 0).sum() == 20


def test_the_deviance_is_the_references():
    graph = crossed(3)
    labels = find_tracks(graph, stage(FALLING)).labels
    pieces = Pieces.of(labels)
    points = points_of(graph.features, stage().columns, FALLING).take(pieces.rows)
    right = fit_tracks(points, pieces.begin, FALLING)
    given = fit.Points(*(torch.from_numpy(each) for each in vars(points).values()))
    detector = fit.Detector(FALLING, "cpu")
    found = fit.fit_tracks(given, torch.from_numpy(pieces.begin), detector)
    np.testing.assert_allclose(found.deviance, right.deviance, rtol=1e-7)
    assert (np.abs(right.deviance - right.chi2) > 1).all()


def test_joining_makes_tracks_whole_and_quality_drops_some():
    graph = crossed(1)
    alone, joined, chosen = (
        int(found_on_device([graph], stage(FALLING, **builder))[0].counts)
        for builder in ({}, {"join": 300.0}, {"join": 300.0, "min_quality": 0.3})
    )
    assert chosen < joined < alone


def test_events_without_edges_and_without_hits():
    none, _ = event([])
    one = replace(none, features=np.zeros((1, 3), np.float32))
    chosen = stage(join=30.0, min_quality=0.3, extend=0.0025)
    found, _ = found_on_device([none, one, none], chosen)
    assert found.labels.tolist() == [-1]
    assert found.counts.tolist() == [0, 0, 0]
    assert found.parameters.shape == (0, len(TRACK_COLUMNS))


def test_too_many_pieces_to_fit_are_refused():
    graph = crossed(0)
    with pytest.raises(InputError, match=r"hits of pieces of tracks that may be one, and cpu has"):
        found_on_device([graph], stage(join=30.0), room=Room(4_000, "cpu"))


@pytest.mark.parametrize(
    ("room", "what"),
    [(4_000, "hits of tracks that may go on"), (140_000, "hits near where tracks go on")],
)
def test_too_many_hits_beyond_tracks_are_refused(room, what):
    with pytest.raises(InputError, match=rf"{what}, and cpu has"):
        found_on_device([frayed(0)], stage(extend=0.0025), room=Room(room, "cpu"))
