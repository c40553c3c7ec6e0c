"""Every encoding of hits and labels brings back what it promises, and changed tracks are counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from studies.client.codecs import HITS, LABELS
from studies.client.encodings import hits_on_other_tracks

PLACES = arrays(
    np.float32,
    st.tuples(st.integers(1, 50), st.just(3)),
    elements=st.floats(-3000, 3000, width=32),
)


@pytest.mark.parametrize("name", [name for name in HITS if not name.startswith("blocks")])
@given(positions=PLACES)
def test_hits_come_back_within_half_a_step(name, positions):
    codec = HITS[name]
    back = codec.decode(codec.encode(positions))
    assert back.dtype == np.float32
    assert back.shape == positions.shape
    # Half a step, and the rounding of float32 at 3 m.
    assert np.abs(back - positions).max() <= codec.step / 2 + (2.5e-4 if codec.step else 0)


@pytest.mark.parametrize("name", LABELS)
@given(labels=arrays(np.int64, st.integers(1, 50), elements=st.integers(-1, 2**30)))
def test_labels_come_back_exactly(name, labels):
    codec = LABELS[name]
    np.testing.assert_array_equal(codec.decode(codec.encode(labels)), labels)


def test_hits_on_other_tracks_are_counted_whatever_the_numbers():
    before = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    assert hits_on_other_tracks(np.array([2, 2, 0, 0, 1, 1, -1, -1]), before) == 0
    assert hits_on_other_tracks(np.array([2, 2, 0, 0, 1, -1, -1, -1]), before) == 2
    assert hits_on_other_tracks(np.array([0, 0, 0, 0, 1, 1, -1, 2]), before) == 5
