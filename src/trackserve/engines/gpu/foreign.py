"""Networks that are not of the family: onnxruntime runs them on the processor, and says so.

The answer is right and the way long: what such a network needs goes down to the host and up again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trackserve.event import Graph
from trackserve.pipeline.networks import load_network, run_network
from trackserve.pipeline.triplets import triplet_logits

if TYPE_CHECKING:
    from pathlib import Path


class ForeignNetwork:
    """A network on onnxruntime that takes and returns tensors of the device."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._session = load_network(path, threads=1)

    def __call__(self, features: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``[N, D]`` from features ``[N, F]``, or a logit for each edge or triplet.

        ``pairs`` are the edges, then the triplets, each as its first and its second rows.
        """
        given = features.cpu().numpy()
        rows = [torch.stack(pair).cpu().numpy().astype(np.int64) for pair in pairs]
        if rows and not rows[-1 if self.name == "triplets" else 0].shape[1]:
            return torch.empty(0, device=features.device)
        if self.name == "triplets":
            answer = triplet_logits(self._session, Graph(given, rows[0]), rows[1])
        else:
            answer = run_network(self._session, given, *rows)
        return torch.from_numpy(np.array(answer)).to(features.device)
