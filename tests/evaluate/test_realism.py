from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from trackserve.errors import InputError
from trackserve.evaluate.realism import (
    Sample,
    compare,
    hits_of_hard_primaries,
    kolmogorov_smirnov,
    read_sample,
    total_variation,
)

EVENTS = Path(__file__).parents[2] / "examples/events/pu20"


@pytest.fixture(scope="module")
def sample() -> Sample:
    return read_sample(EVENTS)


def test_distances_by_hand_and_beside_scipy() -> None:
    assert total_variation([1, 3], [3, 1]) == pytest.approx(0.5)
    assert total_variation([2, 6], [1, 3]) == 0
    assert kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1
    random = np.random.default_rng(0)
    one, other = random.normal(size=300), random.normal(0.3, 1, 500)
    assert kolmogorov_smirnov(one, other) == pytest.approx(ks_2samp(one, other).statistic)


def test_a_sample_is_like_itself(sample: Sample) -> None:
    for row in compare(sample, sample):
        assert row.real == row.simulated
        assert not row.distance
        assert len(row.real) == len(row.labels)


def test_what_differs_is_found(sample: Sample) -> None:
    other = replace(
        sample,
        hits=np.maximum(sample.hits - 3, 0),
        vertex=sample.vertex * np.array([1, 1, 0.1]),
        momentum=sample.momentum * 1.3,
    )
    distance = {row.name: row.distance for row in compare(sample, other)}
    assert distance["vertices"] > 0.2
    assert distance["hits of a primary above 1 GeV"] > 0.5
    assert distance["pT of particles with hits, GeV"] > 0.1
    assert distance["|eta| of primaries"] == 0


def test_hits_of_hard_primaries_are_counted() -> None:
    particles = Sample(
        event=np.zeros(4, dtype=np.int64),
        vertex=np.array([[0, 0, 0], [0, 0, 5.0], [30, 0, 0], [0, 1.0, 0]]),
        momentum=np.array([[2.0, 0, 0], [0, 1.5, 3], [5, 0, 0], [0.5, 0, 9]]),
        charge=np.ones(4),
        hits=np.array([3, 25, 7, 9]),
        hits_of_event=np.array([60]),
        hits_of_volume=np.ones(9, dtype=np.int64),
    )
    counts = hits_of_hard_primaries(particles)
    assert counts[3] == counts[18] == 1
    assert counts.sum() == 2


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_sample(tmp_path)
