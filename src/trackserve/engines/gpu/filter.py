"""Network 2: the edges that pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.filter import filter_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.engines.gpu.lists import Kept, Pairs, Room, sort

if TYPE_CHECKING:
    import numpy as np

    from trackserve.engines.gpu.order import NetworkHits
    from trackserve.engines.gpu.weights import Network

EDGES = rows(128)
"""Edges of a program."""
PASS = 4
"""At first there is room for one edge in this number to pass."""


def keep_edges(
    network: Network, hits: NetworkHits, edges: Pairs, *, least: np.float32, room: Room
) -> Pairs:
    """Return the edges whose logit is at least ``least``, sorted by their inner, then their outer hit."""

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        kept = Kept(float(least), entries, count, places)
        _launch(network, hits, edges, hits.seen, kept)

    return sort(room.take("edges that pass the filter", len(edges.entries) // PASS + EDGES, fill))


def filter_logits(network: Network, hits: NetworkHits, edges: Pairs) -> Tensor:
    """Return the logit of each edge ``[E]``."""
    logits = torch.empty(len(edges.entries), device=hits.seen.device)
    _launch(network, hits, edges, logits, None)
    return logits


def _launch(
    network: Network,
    hits: NetworkHits,
    edges: Pairs,
    logits: Tensor,
    kept: Kept | None,
) -> None:
    into = kept or Kept(0.0, edges.entries, edges.count, 0)
    filter_kernel[blocks(len(edges.entries), EDGES)](
        *hits,
        edges.entries,
        edges.count,
        *network.perceptron,
        into.least,
        logits,
        into.entries,
        into.count,
        into.room,
        B=EDGES,
        W=network.wide,
        LAYERS=network.family.depth - 1,
        FURTHER=network.further,
        PRECISION=network.dot,
        LOGITS=kept is None,
        num_warps=4,
    )
