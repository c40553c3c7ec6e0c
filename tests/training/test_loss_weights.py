"""What an edge and a triplet count in the losses, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trackserve.data import find_events
from trackserve.pipeline.features import cylindrical
from trackserve.pipeline.neighbours import DoubletCuts, passes_cuts
from trackserve.training.recipe import Recipe, TargetsRecipe
from trackserve.training.samples import Sample, make_sample
from trackserve.training.triplets import weights
from wedge import write_wedge


def sample(*length: float) -> Sample:
    """A particle whose hits follow each other at these distances (mm)."""
    first = np.arange(len(length))
    return Sample(
        features=np.zeros((len(length) + 1, 3), np.float32),
        particle=np.zeros(len(length) + 1, np.int64),
        edges=np.stack([first, first + 1]),
        length=np.array(length, np.float32),
        importance=np.ones(len(length), np.float32),
        target=np.ones(len(length), np.bool_),
    )


def test_an_edge_counts_by_the_square_of_its_length():
    assert sample(0, 150, 300).weight(150.0).tolist() == [1, 2, 5]


def test_a_triplet_counts_as_its_longer_edge():
    track = sample(0, 300, 150)
    triplets = np.array([[0, 1], [1, 2]])
    assert weights(track, track.edges, triplets, 150.0).tolist() == [5, 5]
    short_ones = np.array([[0], [2]])
    assert weights(track, track.edges, short_ones, 150.0).tolist() == [2]


def test_an_edge_counts_as_its_particle_does():
    track = replace(sample(0, 150), importance=np.array([3, 0.5], np.float32))
    assert track.weight(150.0).tolist() == [3, 1]


def test_targets_are_the_recipes_particles_and_count_as_it_says(tmp_path):
    write_wedge(tmp_path, 0, half=3.2)
    event = find_events(tmp_path)[0].read()
    assert event.truth is not None
    particles = event.truth.particles
    cuts = DoubletCuts(slope=2e-3, dphi=3e-3, z0=100.0, dcot=0.06)
    kinds = TargetsRecipe(120.0, 0.9, hard_weight=3, displaced_weight=2, short_weight=5)
    made = make_sample(event, Recipe(min_pt=0.3, targets=kinds, doublet_cuts=cuts))
    owner = made.particle[made.edges[0]]
    hits = np.bincount(made.particle[made.particle >= 0], minlength=len(particles))[owner]
    far = particles.production_radius[owner]
    expected = np.where(particles.pt[owner] > 0.9, 3.0, 1.0) * np.where(far > 2, 2, 1)
    assert np.array_equal(made.importance, expected * np.where(hits <= 5, 5, 1))
    of_targets = (particles.q[owner] != 0) & (particles.pt[owner] > 0.3) & (far < 120)
    of_targets &= (np.abs(particles.eta[owner]) < 4) & (hits >= 3)
    assert made.target.any()
    assert not made.target[~of_targets].any()
    dropped = make_sample(event, Recipe(min_pt=0.3, targets=kinds)).target & ~made.target
    assert 0 < dropped.sum() < 0.2 * made.target.sum()
    position = cylindrical(made.features, Recipe().features)
    assert not passes_cuts(position, *made.edges[:, dropped], cuts).any()
    near = make_sample(event, Recipe(min_pt=0.3)).target
    assert not near[far > 2].any()
