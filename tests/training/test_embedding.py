"""What the embedding is shown of an event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trackserve.pipeline.features import FeatureColumns
from trackserve.training.embedding import wedge
from trackserve.training.recipe import EmbeddingRecipe, Recipe
from trackserve.training.samples import Sample

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, float(np.pi), 1000.0), {})


def ring(hits: int = 2000) -> Sample:
    """Hits all around the beam line, each joined to the next."""
    rng = np.random.default_rng(0)
    features = np.stack([np.full(hits, 0.1), np.linspace(-1, 1, hits), rng.normal(0, 1, hits)])
    first = np.arange(hits - 1)
    return Sample(
        features=features.T.astype(np.float32),
        particle=np.zeros(hits, np.int64),
        edges=np.stack([first, first + 1]),
        length=np.ones(hits - 1, np.float32),
        importance=np.ones(hits - 1, np.float32),
        target=np.ones(hits - 1, np.bool_),
    )


def test_wedges_have_the_recipes_share_and_lie_at_every_azimuth():
    """An embedding that saw wedges about azimuth 0 alone would know nothing of the rest of the detector."""
    recipe = Recipe(features=COLUMNS, embedding=replace(EmbeddingRecipe(), wedge=0.1))
    generator, sample = np.random.default_rng(1), ring()
    seen = np.zeros(20, np.int64)
    for _ in range(60):
        part = wedge(sample, recipe, generator)
        phi = np.pi * part.features[:, 1]
        assert 190 <= len(phi) <= 210
        assert np.abs(np.mean(np.exp(1j * phi))) > 0.98, "its hits lie beside each other"
        step = np.abs(np.diff(phi[part.edges], axis=0)[0])
        assert np.minimum(step, 2 * np.pi - step).max() < 0.01, "edges join the same hits"
        seen += np.histogram(phi, bins=20, range=(-np.pi, np.pi))[0]
    assert (seen > 100).all()
