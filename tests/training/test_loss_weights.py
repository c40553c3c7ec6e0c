"""What an edge and a triplet count in the losses, worked out by hand."""

from __future__ import annotations

import numpy as np

from trackserve.training.samples import Sample
from trackserve.training.triplets import weights


def sample(*length: float) -> Sample:
    """A particle whose hits follow each other at these distances (mm)."""
    first = np.arange(len(length))
    return Sample(
        features=np.zeros((len(length) + 1, 3), np.float32),
        particle=np.zeros(len(length) + 1, np.int64),
        edges=np.stack([first, first + 1]),
        length=np.array(length, np.float32),
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
