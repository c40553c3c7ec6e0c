"""Training network 2: true edges from the wrong ones that the embedding lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trackserve.training.samples import WRONG, Sample, turned

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

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event on a random part of its candidate edges."""
        sample, edges = self.samples[event](), self.candidates[event]()
        row = sample.label(edges)
        wanted = target_edges(sample, row)
        wrong = np.flatnonzero(row == WRONG)
        wrong = generator.choice(wrong, min(len(wrong), self.recipe.filter.edges), replace=False)
        used = np.concatenate([np.flatnonzero(wanted), wrong])
        features = torch.from_numpy(turned(sample.features, self.recipe.features, generator)).to(
            self.device
        )
        logits = self.network(features, torch.from_numpy(edges[:, used]).to(self.device))
        label = torch.from_numpy(wanted[used].astype(np.float32)).to(self.device)
        loss = binary_cross_entropy_with_logits(
            logits, label, pos_weight=torch.tensor(self.recipe.filter.positive_weight)
        )
        kept = (
            np.quantile(logits[: wanted.sum()].detach().cpu().numpy(), 0.01) if wanted.any() else 0
        )
        passing = (logits[wanted.sum() :] > float(kept)).float().mean().item()
        return loss, {"wrong_kept_at_99%": passing}


def target_edges(sample: Sample, row: Int64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which edges, given by their row among the true ones, are targets ``[E]``."""
    wanted = np.zeros(len(row), np.bool_)
    true = row >= 0
    wanted[true] = sample.target[row[true]]
    return wanted


def choose_cut(
    logits: Sequence[Float32], samples: Sequence[Sample], edges: Sequence[Int64], efficiency: float
) -> float:
    """Return the score, in (0, 1), that this share of the target edges reach."""
    wanted = [
        logit[target_edges(sample, sample.label(edge))]
        for logit, sample, edge in zip(logits, samples, edges, strict=True)
    ]
    threshold = np.quantile(np.concatenate(wanted), 1 - efficiency)
    return float(np.clip(1 / (1 + np.exp(-threshold)), 1e-6, 1 - 1e-6))
