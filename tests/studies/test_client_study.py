"""Compact encodings of hits and labels bring back what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from studies.client.encodings import HITS, LABELS, delta, fixed_point

PLACES = arrays(
    np.float32,
    st.tuples(st.integers(1, 50), st.just(3)),
    elements=st.floats(-3000, 3000, width=32),
)


@pytest.mark.parametrize("name", HITS)
@given(positions=PLACES)
def test_hits_come_back_within_half_a_step(name, positions):
    codec = HITS[name]
    back = codec.decode(codec.encode(positions))
    assert back.dtype == np.float32
    assert back.shape == positions.shape
    # Half a step, and the rounding of float32 at 3 m.
    assert np.abs(back - positions).max() <= codec.step / 2 + (2.5e-4 if codec.step else 0)


@pytest.mark.parametrize("name", LABELS)
@given(labels=arrays(np.int64, st.integers(0, 50), elements=st.integers(-1, 2**30)))
def test_labels_come_back_exactly(name, labels):
    codec = LABELS[name]
    np.testing.assert_array_equal(codec.decode(codec.encode(labels)), labels)


@pytest.mark.parametrize("make", [fixed_point, delta])
def test_hits_on_the_grid_come_back_as_they_are(make):
    positions = (np.random.default_rng(1).integers(-3_000_000, 3_000_000, (500, 3)) * 1e-3).astype(
        np.float32
    )
    codec = make(0.001)
    np.testing.assert_array_equal(codec.decode(codec.encode(positions)), positions)
