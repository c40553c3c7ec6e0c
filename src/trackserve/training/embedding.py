"""Training network 1: hits of one track close together, the wrong ones nearby pushed apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import softplus

from trackserve.pipeline.features import cylindrical
from trackserve.pipeline.neighbours import passes_cuts
from trackserve.training.samples import WRONG, Sample, turned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from trackserve.event import Float32, Int64
    from trackserve.training.networks import Embedding
    from trackserve.training.recipe import Recipe

SHARPNESS = 4.0
"""The logit that two hits belong together is SHARPNESS (1 - d^2), d their distance."""
REACH = 1.3
"""Wrong neighbours are looked for up to this distance, a little beyond where the logit is 0."""


class EmbeddingLoss:
    """Logistic loss of true edges and of the wrong neighbours that the embedding has now.

    Only wrong pairs that pass the doublet cuts count: the cuts drop the others anyway, so the
    network need not learn to. (Hard-negative metric learning: arXiv:2103.06995, section 3.1.)
    """

    def __init__(
        self,
        network: Embedding,
        samples: Sequence[Callable[[], Sample]],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.network, self.samples, self.recipe, self.device = network, samples, recipe, device

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event, with its share of true edges within distance 1."""
        sample, recipe = self.samples[event](), self.recipe
        features = turned(sample.features, recipe.features, generator).to(self.device)
        with torch.no_grad():
            now = self.network(features).cpu().numpy()
        queries = generator.choice(
            len(now), min(len(now), recipe.embedding.queries), replace=False
        ).astype(np.int64)
        wrong = wrong_neighbours(sample, now, queries, recipe)
        true = sample.edges[:, sample.target]
        d_true, d_wrong = self._squared_distances(features, true, wrong)
        positive = softplus(SHARPNESS * (d_true - 1)).mean()
        negative = softplus(SHARPNESS * (1 - d_wrong)).sum() / len(queries)
        linked = (d_true < 1).float().mean().item()
        per_hit = (d_wrong < 1).sum().item() / len(queries)
        loss = positive + recipe.embedding.wrong_weight * negative
        return loss, {"linked": linked, "wrong_per_hit": per_hit}

    def _squared_distances(
        self, features: Tensor, true: Int64, wrong: Int64
    ) -> tuple[Tensor, Tensor]:
        """Embed the hits of these pairs only, each once, and return the pairs' squared distances."""
        pairs = np.concatenate([true, wrong], axis=1)
        used, place = np.unique(pairs, return_inverse=True)
        points = self.network(features[torch.from_numpy(used).to(self.device)])
        ends = torch.from_numpy(place.reshape(pairs.shape)).to(self.device)
        apart = points.index_select(0, ends[0]) - points.index_select(0, ends[1])
        squared = (apart * apart).sum(dim=1)
        return squared[: true.shape[1]], squared[true.shape[1] :]


def wrong_neighbours(sample: Sample, embedding: Float32, queries: Int64, recipe: Recipe) -> Int64:
    """Return the pairs ``[2, W]`` of queries with hits of other particles within REACH."""
    near = cKDTree(embedding[queries]).sparse_distance_matrix(
        cKDTree(embedding), REACH, output_type="ndarray"
    )
    one, other = queries[near["i"]], near["j"].astype(np.int64)
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other)])
    pairs = pairs[:, pairs[0] != pairs[1]]
    position = cylindrical(sample.features, recipe.features)
    pairs = pairs[:, passes_cuts(position, pairs[0], pairs[1], recipe.doublet_cuts)]
    wrong: Int64 = pairs[:, sample.label(pairs) == WRONG]
    return wrong


def choose_radius(
    embeddings: Sequence[Float32], samples: Sequence[Sample], efficiency: float
) -> float:
    """Return the radius within which this share of the target edges lie."""
    distances = [
        np.linalg.norm(points[edges[0]] - points[edges[1]], axis=1)
        for points, edges in zip(embeddings, (s.edges[:, s.target] for s in samples), strict=True)
    ]
    return float(np.quantile(np.concatenate(distances), efficiency))
