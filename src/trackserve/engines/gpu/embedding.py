"""Network 1: the points of hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.embedding import embedding_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.engines.gpu.weights import power_of_two

if TYPE_CHECKING:
    from trackserve.engines.gpu.order import NetworkHits
    from trackserve.engines.gpu.weights import Network

HITS = rows(32)
"""Hits of a program."""
WARPS = 8
"""With fewer, or more hits, states of 128 columns spill in float32."""


def embed(network: Network, hits: NetworkHits) -> Tensor:
    """Return the points ``[N, D]`` of hits as :func:`network_hits` gives them."""
    count, dimension = len(hits.seen), network.family.dimension
    points = torch.empty(count, dimension, device=hits.seen.device)
    embedding_kernel[blocks(count, HITS)](
        *hits,
        count,
        *network.perceptron,
        points,
        B=HITS,
        W=network.wide,
        LAYERS=network.family.depth - 1,
        D=dimension,
        WIDE_D=power_of_two(dimension),
        FURTHER=network.further,
        PRECISION=network.dot,
        num_warps=WARPS,
    )
    return points
