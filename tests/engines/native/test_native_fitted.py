"""Tracks built with the fit: the native engine gives what the reference gives."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fitted_tracks import FALLING, FLAT, crowded, event, helix, stage
from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.stages import find_tracks
from trackserve.pipeline.extending import MOST_TRIED
from trackserve.pipeline.tracks import find_tracks as reference

each_variant = pytest.mark.parametrize("variant", variants())
SETTINGS = {"constant": FLAT, "falling": FALLING}
BUILDERS = (
    {},
    {"join": 30.0},
    {"join": 30.0, "min_quality": 0.3},
    {"join": 30.0, "min_quality": 0.3, "extend": 0.01},
    {"extend": 0.1},
)


def many_particles(seed: int):
    rng = np.random.default_rng(seed)
    tracks = []
    for _ in range(24):
        pt, cot, phi = 0.4 + rng.exponential(0.8), rng.normal(0, 1.2), rng.uniform(-np.pi, np.pi)
        charge = int(rng.choice([-1, 1]))
        track = helix(pt, charge, phi, cot, z0=rng.normal(0, 5), settings=FALLING)
        tracks.append(track[rng.random(len(track)) > 0.05] + rng.normal(0, 0.02, (1, 3)))
    tracks = [track for track in tracks if len(track) > 3]
    broken = {i: int(rng.integers(1, len(track) - 1)) for i, track in enumerate(tracks)}
    return event(tracks, broken=broken, noise=90, seed=seed)[0]


@cache
def fitted_by_the_reference(settings: str, builder: int):
    """A graph, how its tracks are built, and the reference's: seconds, and the same for every variant."""
    graph = many_particles(seed=len(BUILDERS[builder]))
    chosen = stage(SETTINGS[settings], **BUILDERS[builder])
    return graph, chosen, reference(graph, chosen, parameters=True)


@each_variant
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("builder", range(len(BUILDERS)))
def test_labels_and_parameters_equal_the_reference(variant, settings, builder):
    graph, chosen, expected = fitted_by_the_reference(settings, builder)
    found = find_tracks(graph, chosen, library(variant), parameters=True)
    assert len(expected) > 12
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.parameters is not None
    assert expected.parameters is not None
    np.testing.assert_allclose(
        found.parameters.matrix(), expected.parameters.matrix(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(find_tracks(graph, chosen, library(variant)).labels, found.labels)


@each_variant
@pytest.mark.parametrize("beside", [MOST_TRIED - 1, MOST_TRIED])
def test_as_many_hits_are_tried_at_an_end_as_by_the_reference(variant, beside):
    graph, owner = crowded(beside)
    chosen = stage(extend=0.0025)
    found = find_tracks(graph, chosen, library(variant)).labels
    np.testing.assert_array_equal(found, reference(graph, chosen).labels)
    assert (found[owner == 1] == 0).all() == (beside < MOST_TRIED)
