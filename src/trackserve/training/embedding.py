"""Training network 1: hits of one track close together, the wrong ones nearby pushed apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import softplus

from trackserve.errors import InputError
from trackserve.pipeline.features import cylindrical
from trackserve.pipeline.neighbours import passes_cuts
from trackserve.training.samples import WRONG, Sample, turned, varied, weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from trackserve.event import Float32, Graph, Int64
    from trackserve.training.networks import Embedding
    from trackserve.training.recipe import Recipe

SHARPNESS = 4.0
"""The logit that two hits belong together is SHARPNESS (1 - d^2), d their distance."""
CUT_WEIGHT = 0.02
"""What a wrong neighbour that the doublet cuts drop counts, against one that passes them."""
REACH = 1.3
"""Wrong neighbours are looked for up to this distance, a little beyond where the logit is 0."""


class EmbeddingLoss:
    """Logistic loss of true edges and of the wrong neighbours that the embedding has now.

    A wrong pair that fails the doublet cuts costs the search alone and counts less. ``find`` is the
    neighbour search. (Hard-negative metric learning: arXiv:2103.06995, section 3.1.)
    """

    def __init__(
        self,
        network: Embedding,
        samples: Sequence[Callable[[], Sample]],
        recipe: Recipe,
        device: torch.device,
        find: Callable[..., Graph],
    ) -> None:
        self.network, self.samples, self.recipe, self.device = network, samples, recipe, device
        self.find = find

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event, with its share of true edges within distance 1."""
        recipe = self.recipe
        sample = wedge(self.samples[event](), recipe, generator)
        features = torch.from_numpy(sample.features).to(self.device)
        with torch.no_grad():
            now = self.network(features).cpu().numpy()
        queries = generator.choice(
            len(now), min(len(now), recipe.embedding.queries), replace=False
        ).astype(np.int64)
        passing, per_pair = passing_neighbours(sample, now, recipe, self.find, generator)
        failing = failing_neighbours(sample, now, queries, recipe)
        true = sample.edges[:, sample.target]
        d_true, d_passing, d_failing = self._squared_distances(features, true, passing, failing)
        # An event may have no target in this wedge, and then nothing to pull together.
        targets, asked = max(len(d_true), 1), max(len(queries), 1)
        weight = sample.weight(recipe.long_edge)[sample.target]
        share = torch.from_numpy(weight / max(weight.sum(), 1)).to(self.device)
        positive = (share * softplus(SHARPNESS * (d_true - 1))).sum()
        negative = per_pair * softplus(SHARPNESS * (1 - d_passing)).sum()
        negative = negative + CUT_WEIGHT / asked * softplus(SHARPNESS * (1 - d_failing)).sum()
        linked = (d_true < 1).sum().item() / targets
        per_hit = per_pair * (d_passing < 1).sum().item()
        loss = positive + recipe.embedding.wrong_weight * negative
        return loss, {"linked": linked, "wrong_per_hit": per_hit}

    def _squared_distances(self, features: Tensor, *kinds: Int64) -> list[Tensor]:
        """Embed the hits of these pairs only, each once, and return each kind's squared distances."""
        pairs = np.concatenate(kinds, axis=1)
        used, place = np.unique(pairs, return_inverse=True)
        points = self.network(features[torch.from_numpy(used).to(self.device)])
        ends = torch.from_numpy(place.reshape(pairs.shape)).to(self.device)
        apart = points.index_select(0, ends[0]) - points.index_select(0, ends[1])
        squared = (apart * apart).sum(dim=1)
        return list(squared.split([kind.shape[1] for kind in kinds]))


def wedge(sample: Sample, recipe: Recipe, generator: np.random.Generator) -> Sample:
    """Return a wedge of the event about the beam line, of ``recipe``'s share, turned at random.

    Nearly all neighbours of a hit lie in its wedge, and looking them up there costs far less. It is
    turned once more after it was cut out: the network has to see every azimuth.
    """
    features = turned(sample.features, recipe.features, generator)
    phi = recipe.features.columns.index("phi")
    half = recipe.embedding.wedge * np.pi / recipe.features.scales[phi]
    rows = np.flatnonzero(np.abs(features[:, phi]) <= half)
    part = replace(sample, features=features).part(rows)
    return replace(part, features=varied(part.features, recipe, generator))


def passing_neighbours(
    sample: Sample,
    embedding: Float32,
    recipe: Recipe,
    find: Callable[..., Graph],
    generator: np.random.Generator,
) -> tuple[Int64, float]:
    """Return wrong pairs ``[2, W]`` within REACH that pass the doublet cuts, and what each stands for.

    At most ``recipe.embedding.pairs`` of them, drawn at random; each is weighted to represent all pairs of its hit.
    """
    pairs = find(
        embedding,
        sample.features,
        recipe.features,
        radius=REACH,
        limit=recipe.embedding.negatives,
        cuts=recipe.doublet_cuts,
        threads=torch.get_num_threads(),
    ).edges
    every = pairs.shape[1]
    if every > recipe.embedding.pairs:
        pairs = pairs[:, generator.integers(every, size=recipe.embedding.pairs)]
    weight = every / max(pairs.shape[1], 1) / max(len(embedding), 1)
    return pairs[:, sample.label(pairs) == WRONG], weight


def failing_neighbours(sample: Sample, embedding: Float32, queries: Int64, recipe: Recipe) -> Int64:
    """Return the pairs ``[2, W]`` of queries with hits within REACH that fail the doublet cuts."""
    # The nearest ones alone: before the first updates, all hits of an event lie within REACH.
    limit = min(recipe.embedding.negatives + 1, max(len(embedding), 1))
    _, near = cKDTree(embedding).query(
        embedding[queries], k=limit, distance_upper_bound=REACH, workers=torch.get_num_threads()
    )
    near = np.asarray(near).reshape(len(queries), limit)
    here = np.broadcast_to(queries[:, None], near.shape)
    found = (near < len(embedding)) & (near != here)
    pairs = np.stack([np.minimum(here, near)[found], np.maximum(here, near)[found]])
    position = cylindrical(sample.features, recipe.features)
    failing: Int64 = pairs[:, ~passes_cuts(position, pairs[0], pairs[1], recipe.doublet_cuts)]
    return failing


def choose_radius(
    embeddings: Sequence[Float32], samples: Sequence[Sample], efficiency: float, long_edge: float
) -> float:
    """Return the radius within which this share of the target edges lie, weighted by length.

    Raises :class:`InputError` where there is no target edge.
    """
    distances = [
        np.linalg.norm(points[edges[0]] - points[edges[1]], axis=1)
        for points, edges in zip(embeddings, (s.edges[:, s.target] for s in samples), strict=True)
    ]
    every = np.concatenate(distances)
    if not len(every):
        message = (
            "the validation events have no edge of a target particle; train on more events, or with "
            "a lower min_pt"
        )
        raise InputError(message)
    weight = np.concatenate([s.weight(long_edge)[s.target] for s in samples])
    return weighted_quantile(every, weight, efficiency)
