"""How training varies its events."""

from __future__ import annotations

import numpy as np

from trackserve.pipeline.features import FeatureColumns, cylindrical
from trackserve.training.recipe import Recipe
from trackserve.training.samples import turned, varied

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, float(np.pi), 1000.0), {})


def hits(count: int = 500) -> np.ndarray:
    """Hits all around the beam line, features ``[N, 3]``."""
    rng = np.random.default_rng(0)
    low, high = (0.03, -1, -1), (1, 1, 1)
    return rng.uniform(low, high, (count, 3)).astype(np.float32)


def plane(features: np.ndarray) -> np.ndarray:
    """Return x + i y (mm)."""
    r, phi, _ = cylindrical(features, COLUMNS)
    return r * np.exp(1j * phi)


def test_the_beam_spot_moves_with_all_hits_as_the_recipe_sets():
    recipe, generator, before = (
        Recipe(features=COLUMNS, beam_spot=0.5),
        np.random.default_rng(1),
        hits(),
    )
    moves = []
    for _ in range(300):
        after = varied(before, recipe, generator)
        assert np.allclose(np.abs(after[:, 2]), np.abs(before[:, 2]))
        # A turn and a mirror keep distances, and the beam line is where it was before the hits moved.
        apart = np.abs(np.diff(plane(after)))
        assert np.allclose(apart, np.abs(np.diff(plane(before))), atol=1e-3)
        moves.append(np.abs(np.abs(plane(after)) - np.abs(plane(before))).max())
    # The hits farthest along the move have moved by its length: 0.5 sqrt(2) mm, root mean square.
    assert abs(np.sqrt(np.mean(np.square(moves))) - 0.5 * np.sqrt(2)) < 0.06


def test_without_it_events_are_turned_alone():
    recipe, before = Recipe(features=COLUMNS), hits()
    once = varied(before, recipe, np.random.default_rng(2))
    assert np.array_equal(once, turned(before, COLUMNS, np.random.default_rng(2)))
    assert np.array_equal(once[:, 0], before[:, 0])
