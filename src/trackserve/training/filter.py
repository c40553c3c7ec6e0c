"""Training network 2: true edges from the wrong ones that the embedding lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trackserve.errors import InputError
from trackserve.training.samples import WRONG, Sample, varied, weighted_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from trackserve.event import Float32, Int64
    from trackserve.training.networks import Filter
    from trackserve.training.recipe import Recipe


class FilterLoss:
    """Cross entropy of target edges against wrong ones; other edges of one particle don't count."""

    def __init__(
        self,
        network: Filter,
        samples: Sequence[Callable[[], Sample]],
        candidates: Sequence[Callable[[], Int64]],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.network, self.recipe, self.device = network, recipe, device
        self.samples, self.candidates = samples, candidates
        self._targets: dict[int, tuple[Int64, Float32]] = {}

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event on a random part of its candidate edges."""
        sample, edges = self.samples[event](), self.candidates[event]()
        candidates = edges.shape[1]
        drawn = generator.integers(
            max(candidates, 1), size=self.recipe.filter.edges if candidates else 0
        )
        wrong = edges[:, drawn].astype(np.int64)
        wrong = wrong[:, sample.label(wrong) == WRONG]
        if event not in self._targets:
            whole = edges.astype(np.int64)
            self._targets[event] = among(sample, whole, self.recipe.long_edge)
        right, weight = self._targets[event]
        used = np.concatenate([right, wrong], axis=1)
        targets = right.shape[1]
        features = torch.from_numpy(varied(sample.features, self.recipe, generator)).to(self.device)
        logits = self.network(features, torch.from_numpy(used).to(self.device))
        label = torch.zeros_like(logits)
        label[:targets] = 1
        counts = torch.ones_like(logits)
        counts[:targets] = torch.from_numpy(weight) * self.recipe.filter.positive_weight
        if not len(logits):
            return logits.sum(), {}
        loss = binary_cross_entropy_with_logits(logits, label, weight=counts)
        values = logits.detach().cpu().numpy()
        least = np.quantile(values[:targets], 0.01) if targets else np.inf
        kept = np.count_nonzero(values[targets:] >= least) / max(wrong.shape[1], 1)
        return loss, {"wrong_kept_at_99%": kept}


def among(sample: Sample, edges: Int64, long_edge: float) -> tuple[Int64, Float32]:
    """Return the target edges ``[2, M]`` that are among these edges, and what each counts ``[M]``."""
    row = sample.label(edges)
    row = row[target_edges(sample, row)]
    return sample.edges[:, row], sample.weight(long_edge)[row]


def target_edges(sample: Sample, row: Int64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which edges, given by their row among the true ones, are targets ``[E]``."""
    wanted = np.zeros(len(row), np.bool_)
    true = row >= 0
    wanted[true] = sample.target[row[true]]
    return wanted


def choose_cut(
    logits: Sequence[Float32],
    samples: Sequence[Sample],
    edges: Sequence[Int64],
    efficiency: float,
    long_edge: float,
) -> float:
    """Return the score, in (0, 1), that this share of the target edges reach, weighted by length.

    Raises :class:`InputError` where there is no target edge.
    """
    found, weights = [], []
    for logit, sample, edge in zip(logits, samples, edges, strict=True):
        row = sample.label(edge)
        wanted = target_edges(sample, row)
        found.append(logit[wanted])
        weights.append(sample.weight(long_edge)[row[wanted]])
    every = np.concatenate(found)
    if not len(every):
        message = (
            "the embedding links no edge of a target particle in the validation events; train it "
            "longer or on more events"
        )
        raise InputError(message)
    threshold = weighted_quantile(every, np.concatenate(weights), 1 - efficiency)
    return float(np.clip(1 / (1 + np.exp(-threshold)), 1e-6, 1 - 1e-6))
