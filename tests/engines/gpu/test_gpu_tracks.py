"""The last stage on the device against the reference: joining, fit, quality, in batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitted_tracks import FALLING, FLAT, RADII, event, stage
from trackserve.contract.wanted import Wanted
from trackserve.errors import InputError
from trackserve.pipeline.tracks import find_tracks
from trackserve.track_table import TRACK_COLUMNS

pytest.importorskip("triton")
from trackserve.engines.gpu import order
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


@pytest.mark.parametrize("settings", [FLAT, FALLING])
@pytest.mark.parametrize("builder", [{}, {"join": 30.0, "min_quality": 0.3}, {"min_quality": 0.3}])
def test_tracks_of_a_batch_are_the_references(settings, builder):
    graphs = [crossed(seed) for seed in range(2)]
    track_stage = stage(settings, **builder)
    found, begins = found_on_device(graphs, track_stage)
    table, ends = found.parameters.numpy(), np.cumsum([0, *found.counts.tolist()])
    assert np.isfinite(table).all(axis=1).sum() > 20
    for i, graph in enumerate(graphs):
        expected = find_tracks(graph, track_stage, parameters=True)
        labels = found.labels[begins[i] : begins[i + 1]].numpy()
        np.testing.assert_array_equal(labels, expected.labels)
        right = expected.parameters.matrix()
        np.testing.assert_allclose(table[ends[i] : ends[i + 1]], right, rtol=1e-5, atol=1e-5)


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
    found, _ = found_on_device([none, one, none], stage(join=30.0, min_quality=0.3))
    assert found.labels.tolist() == [-1]
    assert found.counts.tolist() == [0, 0, 0]
    assert found.parameters.shape == (0, len(TRACK_COLUMNS))


def test_too_many_pieces_to_fit_are_refused():
    graph = crossed(0)
    with pytest.raises(InputError, match=r"hits of pieces of tracks that may be one, and cpu has"):
        found_on_device([graph], stage(join=30.0), room=Room(4_000, "cpu"))
