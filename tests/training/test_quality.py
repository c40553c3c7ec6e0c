"""Quality is calibrated: of tracks with quality q, a share q is right."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from trackserve.errors import InputError
from trackserve.pipeline.quality import QualityModel
from trackserve.training.quality import learn_quality


def made_up(tracks: int, seed: int):
    """Properties of tracks, and which are right, drawn from a known model."""
    rng = np.random.default_rng(seed)
    properties = np.concatenate([np.ones((tracks, 1)), rng.normal(0, 1, (tracks, 11))], axis=1)
    truth = QualityModel(-0.5, 2.0, -0.3, 1.0, -1.0, -0.2, 0.1, -0.1, -0.3, 0.7, 0.4, 0.8)
    return properties, rng.random(tracks) < truth.quality(properties), truth


def test_the_weights_of_a_known_model_are_found():
    properties, right, truth = made_up(60_000, seed=1)
    found = learn_quality(properties, right)
    np.testing.assert_allclose(astuple(found), astuple(truth), atol=0.08)


def test_quality_is_the_share_that_is_right():
    found = learn_quality(*made_up(40_000, seed=2)[:2])
    properties, right, _ = made_up(40_000, seed=3)
    quality = found.quality(properties)
    for low in np.arange(0, 1, 0.1):
        here = (quality >= low) & (quality < low + 0.1)
        assert right[here].mean() == pytest.approx(quality[here].mean(), abs=0.03)


def test_few_wrong_tracks_teach_nothing():
    properties, _, _ = made_up(1000, seed=4)
    with pytest.raises(InputError, match=r"901 of 1,000 tracks .* 100 right and 100 wrong ones at"):
        learn_quality(properties, np.arange(1000) >= 99)
