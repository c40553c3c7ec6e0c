from __future__ import annotations

import numpy as np
import pytest

from trackserve.data.weights import hit_weights
from trackserve.event import Particles


def particles(identity: list[int], pt: list[float], vz: float = 0.0) -> Particles:
    count = len(identity)
    zero = np.zeros(count)
    return Particles(
        particle_id=np.array(identity, dtype=np.int64),
        vx=zero,
        vy=zero,
        vz=np.full(count, vz),
        px=np.array(pt),
        py=zero,
        pz=zero,
        q=np.ones(count),
        primary=np.ones(count, dtype=bool),
    )


def test_nine_hits_weigh_as_the_challenge_proposes() -> None:
    # Nine hits take the nine proposed weights as they are; they are ordered by |z - vz|.
    z = np.array([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0])
    weights = hit_weights(np.full(9, 7, dtype=np.int64), z, particles([7], [1.0]))
    assert weights * 49 == pytest.approx([3, 10, 8, 6, 5, 3, 3, 5, 6])


def test_a_particle_counts_by_its_transverse_momentum() -> None:
    # 0.2 up to 0.5 GeV, then a straight line to 1 at 3 GeV and beyond.
    ids = np.repeat(np.array([1, 2, 3], dtype=np.int64), 5)
    z = np.tile(np.arange(5.0), 3)
    weights = hit_weights(ids, z, particles([3, 1, 2], [100.0, 0.3, 1.75]))
    assert weights.reshape(3, 5).sum(axis=1) == pytest.approx([0.2 / 1.8, 0.6 / 1.8, 1.0 / 1.8])


def test_noise_and_short_particles_weigh_nothing() -> None:
    ids = np.array([0, 4, 4, 4, 5, 5, 5, 5], dtype=np.int64)
    weights = hit_weights(ids, np.arange(8.0), particles([4, 5], [2.0, 2.0]))
    assert (weights[:4] == 0).all()
    assert (weights[4:] > 0).all()
    assert weights.sum() == pytest.approx(1)


def test_hits_beyond_the_twentieth_weigh_nothing() -> None:
    weights = hit_weights(np.full(25, 1, dtype=np.int64), np.arange(25.0), particles([1], [1.0]))
    assert (weights[:20] > 0).all()
    assert (weights[20:] == 0).all()
    assert weights.sum() == pytest.approx(1)


def test_an_event_of_noise_or_of_nothing_has_no_weight() -> None:
    nobody = particles([], [])
    assert hit_weights(np.zeros(3, dtype=np.int64), np.zeros(3), nobody).tolist() == [0, 0, 0]
    assert hit_weights(np.zeros(0, dtype=np.int64), np.zeros(0), nobody).tolist() == []
