"""Training the triplet classifier: two edges of one target from all others that meet in a hit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trackserve.errors import InputError
from trackserve.training.filter import target_edges
from trackserve.training.samples import WRONG, Sample, varied, weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from trackserve.event import Bool, Float32, Int32, Int64
    from trackserve.training.networks import TripletFilter
    from trackserve.training.recipe import Recipe


class TripletLoss:
    """Cross entropy of target triplets against those with a wrong edge; others don't count."""

    def __init__(
        self,
        network: TripletFilter,
        samples: Sequence[Callable[[], Sample]],
        graphs: Sequence[Callable[[], tuple[Int64, Int64]]],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.network, self.recipe, self.device = network, recipe, device
        self.samples, self.graphs = samples, graphs
        self._rows: dict[int, tuple[Int64, Int32, Float32]] = {}

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event on its target triplets and a random part of the wrong ones."""
        sample, (edges, triplets) = self.samples[event](), self.graphs[event]()
        if event not in self._rows:
            self._rows[event] = self._sorted_out(sample, edges, triplets)
        target_rows, wrong_rows, weight = self._rows[event]
        if len(wrong_rows) > self.recipe.triplets.triplets:
            drawn = generator.integers(len(wrong_rows), size=self.recipe.triplets.triplets)
            wrong_rows = wrong_rows[drawn]
        rows = np.concatenate([target_rows, wrong_rows.astype(np.int64)])
        targets = len(target_rows)
        features = varied(sample.features, self.recipe, generator)
        # Hits and edges that are not drawn take no part: leave them out.
        chosen = triplets[:, rows].astype(np.int64)
        used_edges, place = np.unique(chosen, return_inverse=True)
        used_hits, ends = np.unique(edges[:, used_edges], return_inverse=True)
        logits = self.network(
            torch.from_numpy(features[used_hits]).to(self.device),
            torch.from_numpy(ends.reshape(2, -1)).to(self.device),
            torch.from_numpy(place.reshape(2, -1)).to(self.device),
        )
        if not len(logits):
            return logits.sum(), {}
        label = torch.zeros_like(logits)
        label[:targets] = 1
        counts = torch.ones_like(logits)
        counts[:targets] = torch.from_numpy(weight)
        loss = binary_cross_entropy_with_logits(logits, label, weight=counts)
        values = logits.detach().cpu().numpy()
        least = np.quantile(values[:targets], 0.01) if targets else np.inf
        kept = np.count_nonzero(values[targets:] >= least) / max(len(wrong_rows), 1)
        return loss, {"wrong_kept_at_99%": kept}

    def _sorted_out(
        self, sample: Sample, edges: Int64, triplets: Int64
    ) -> tuple[Int64, Int32, Float32]:
        """Return the rows of the target triplets, of the wrong ones, and what the former count."""
        whole = triplets.astype(np.int64)
        target, wrong = kinds(sample, edges, whole)
        weight = weights(sample, edges, whole[:, target], self.recipe.long_edge)
        return np.flatnonzero(target), np.flatnonzero(wrong).astype(np.int32), weight


def kinds(sample: Sample, edges: Int64, triplets: Int64) -> tuple[Bool, Bool]:
    """Which triplets are two true edges of one target, and which have a wrong edge; each ``[T]``."""
    row = sample.label(edges)
    of_target = target_edges(sample, row)
    inner, outer = triplets
    owner = sample.particle[edges[0]]
    target = of_target[inner] & of_target[outer] & (owner[inner] == owner[outer])
    wrong = (row[inner] == WRONG) | (row[outer] == WRONG)
    return target, wrong


def weights(sample: Sample, edges: Int64, targets: Int64, long_edge: float) -> Float32:
    """Return what each target triplet ``[T]`` counts: as much as the longer of its edges."""
    of_edge = sample.weight(long_edge)[sample.label(edges)]
    longer: Float32 = of_edge[targets].max(axis=0)
    return longer


def choose_least(
    logits: Sequence[Float32],
    samples: Sequence[Sample],
    graphs: Sequence[tuple[Int64, Int64]],
    efficiency: float,
    long_edge: float,
) -> float:
    """Return the score, in (0, 1), that this share of the target triplets reach, weighted by length.

    Raises :class:`InputError` where there is no target triplet.
    """
    found, counts = [], []
    for logit, sample, (edges, triplets) in zip(logits, samples, graphs, strict=True):
        target = kinds(sample, edges, triplets)[0]
        found.append(logit[target])
        counts.append(weights(sample, edges, triplets[:, target], long_edge))
    every = np.concatenate(found)
    if not len(every):
        message = (
            "no target particle has two edges after the filter in the validation events; train the "
            "embedding and the filter longer or on more events"
        )
        raise InputError(message)
    threshold = weighted_quantile(every, np.concatenate(counts), 1 - efficiency)
    return float(np.clip(1 / (1 + np.exp(-threshold)), 1e-6, 1 - 1e-6))
