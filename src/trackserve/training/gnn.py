"""Training network 4: which of the edges that are left belong to a track."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trackserve.training.filter import target_edges
from trackserve.training.samples import Sample, varied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from trackserve.event import Bool, Float32, Int64
    from trackserve.training.networks import Gnn
    from trackserve.training.recipe import Recipe


class GnnLoss:
    """Cross entropy over a graph; true edges of targets count by length, those of others less than 1."""

    def __init__(
        self,
        network: Gnn,
        samples: Sequence[Callable[[], Sample]],
        graphs: Sequence[Callable[[], tuple[Int64, Int64]]],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.network, self.recipe, self.device = network, recipe, device
        self.samples, self.graphs = samples, graphs

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of an event, with the share of right decisions on targets and others."""
        sample, (edges, triplets) = self.samples[event](), self.graphs[event]()
        seen = varied(sample.features, self.recipe, generator)
        edges, triplets = among(edges, triplets, self._in_wedge(seen, edges))
        row = sample.label(edges)
        true, wanted = row >= 0, target_edges(sample, row)
        weight = np.where(true, self.recipe.gnn.soft_weight, 1).astype(np.float32)
        weight[wanted] = sample.weight(self.recipe.long_edge)[row[wanted]]
        # Hits without an edge take no part: leave them out.
        used, place = np.unique(edges, return_inverse=True)
        features = torch.from_numpy(seen[used]).to(self.device)
        ends = torch.from_numpy(place.reshape(edges.shape)).to(self.device)
        logits = self.network(features, ends, torch.from_numpy(triplets).to(self.device))
        if not len(logits):
            return logits.sum(), {}
        loss = binary_cross_entropy_with_logits(
            logits,
            torch.from_numpy(true.astype(np.float32)).to(self.device),
            weight=torch.from_numpy(weight).to(self.device),
        )
        passed = (logits > 0).cpu().numpy()
        found = float(passed[wanted].mean()) if wanted.any() else 1.0
        pure = float(true[passed].mean()) if passed.any() else 1.0
        return loss, {"target_efficiency": found, "purity": pure}

    def _in_wedge(self, features: Float32, edges: Int64) -> Bool:
        """Which edges ``[E]`` lie in a wedge about the beam line that holds the recipe's number."""
        columns = self.recipe.features
        phi = columns.columns.index("phi")
        share = self.recipe.gnn.edges / max(edges.shape[1], 1)
        inside = np.abs(features[:, phi]) * columns.scales[phi] <= min(share, 1) * np.pi
        within: Bool = inside[edges].all(axis=0)
        return within


def among(edges: Int64, triplets: Int64, kept: Bool) -> tuple[Int64, Int64]:
    """Return the edges ``[2, E]`` that are kept ``[E]`` and the triplets between them, renumbered."""
    place = np.cumsum(kept) - 1
    return edges[:, kept], place[triplets[:, kept[triplets].all(axis=0)]]
