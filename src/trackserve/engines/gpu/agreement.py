"""Whether a network's metadata describe the network that its ONNX graph computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trackserve.engines.gpu.embedding import embed
from trackserve.engines.gpu.filter import filter_logits
from trackserve.engines.gpu.gnn import gnn_logits
from trackserve.engines.gpu.lists import Pairs
from trackserve.engines.gpu.order import network_hits
from trackserve.engines.gpu.triplets import Joined, triplet_logits
from trackserve.engines.native.networks import UnknownNetworkError

if TYPE_CHECKING:
    from torch import Tensor

    from trackserve.engines.gpu.foreign import ForeignNetwork
    from trackserve.engines.gpu.weights import Network
    from trackserve.pipeline.features import FeatureColumns

TOLERANCE = 1e-4
"""Largest difference of a float32 output from the reference's, relative to the largest output."""
HITS = 64


def check_agreement(
    network: Network, reference: ForeignNetwork, columns: FeatureColumns, device: str
) -> None:
    """Raise :class:`UnknownNetworkError` unless both answer alike on a made-up event."""
    features, edges, triplets = made_up_event(columns, device)
    given = {"embedding": 0, "filter": 1}.get(network.family.kind, 2)
    found = answer(network, features, columns, edges, triplets)
    expected = reference(features, *(edges, triplets)[:given])
    difference = (found - expected).abs().max() if found.shape == expected.shape else torch.inf
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        message = f"its output differs from the described network's by {float(difference):.2g}"
        raise UnknownNetworkError(message)


def made_up_event(
    columns: FeatureColumns, device: str
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return features, edges from each hit to the four behind it, and their triplets."""
    rng = np.random.default_rng(0)
    features = rng.random((HITS, len(columns.columns)), np.float32)
    features[:, columns.columns.index("z")] -= np.float32(0.5)
    inner = np.repeat(np.arange(HITS - 4), 4)
    outer = inner + np.tile(np.arange(1, 5), HITS - 4)
    one, other = np.nonzero(outer[:, None] == inner)
    edges, triplets = (
        (torch.tensor(first, device=device), torch.tensor(second, device=device))
        for first, second in ((inner, outer), (one, other))
    )
    return torch.tensor(features, device=device), edges, triplets


def answer(
    network: Network,
    features: Tensor,
    columns: FeatureColumns,
    edges: tuple[Tensor, Tensor],
    triplets: tuple[Tensor, Tensor],
) -> Tensor:
    """Return what a network gives for these, on the device."""
    hits = network_hits(features, columns)
    if network.family.kind == "embedding":
        return embed(network, hits)
    if network.family.kind == "filter":
        return filter_logits(network, hits, _pairs(*edges))
    if network.family.kind == "triplets":
        return triplet_logits(network, hits, _pairs(*edges), _pairs(*triplets))
    return gnn_logits(network, hits, Joined(*edges, *triplets))


def _pairs(first: Tensor, second: Tensor) -> Pairs:
    entries = (first << 32) | second
    return Pairs(entries, torch.tensor([len(entries)], device=entries.device))
