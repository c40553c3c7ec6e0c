"""Network 4: the score of each edge in the light of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.gnn import (
    encode_links_kernel,
    encode_nodes_kernel,
    update_links_kernel,
    update_nodes_kernel,
)
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.engines.gpu.lists import begins

if TYPE_CHECKING:
    from trackserve.engines.gpu.order import NetworkHits
    from trackserve.engines.gpu.triplets import Joined
    from trackserve.engines.gpu.weights import Network

ROWS = rows(32, 32)
"""Nodes or links of a program."""
WARPS = 4
"""With more rows for each, states of 32 columns spill in float32 on A100."""


def gnn_logits(network: Network, hits: NetworkHits, graph: Joined) -> Tensor:
    """Return the logit of each edge ``[E]``."""
    edges, triplets = len(graph.inner), len(graph.one)
    logits = torch.empty(edges, device=hits.seen.device)
    if not edges:
        return logits
    run = _Run(network, graph, hits)
    run.encode()
    for step in range(network.family.depth):
        last = step + 1 == network.family.depth
        run.update_nodes(step, logits, last=last)
        if not last and triplets:
            run.update_links(step)
    return logits


class _Run:
    """The states of one graph while its steps are taken."""

    def __init__(self, network: Network, graph: Joined, hits: NetworkHits) -> None:
        self.network, self.graph, self.hits = network, graph, hits
        device = hits.seen.device
        edges, triplets = len(graph.inner), len(graph.one)
        self.edges = torch.tensor([edges], device=device)
        self.triplets = torch.tensor([triplets], device=device)
        self.nodes, self.to_first, self.to_second = self._states(edges, 3)
        (self.links,) = self._states(triplets, 1)
        self.outgoing = begins(graph.one, edges)
        in_order = torch.sort(graph.other, stable=True)
        self.incoming, self.incoming_links = begins(in_order.values, edges), in_order.indices
        self.common = {"B": ROWS, "W": network.wide, "PRECISION": network.dot, "num_warps": WARPS}

    def _states(self, rows: int, count: int) -> tuple[Tensor, ...]:
        number = self.network["score"].dtype
        device = self.hits.seen.device
        return torch.empty(count, rows, self.network.wide, dtype=number, device=device).unbind(0)

    def _layers(self, *names: str) -> list[Tensor]:
        return [self.network[name] for name in names]

    def encode(self) -> None:
        """Make the first states of nodes and links."""
        graph, further = self.graph, self.network.further
        names = ("first", "first_bias", "last", "last_bias")
        encode_nodes_kernel[blocks(len(graph.inner), ROWS)](
            *self.hits,
            graph.inner,
            graph.outer,
            self.edges,
            *self._layers(*(f"edge_{name}" for name in names)),
            self.nodes,
            FURTHER=further,
            **self.common,
        )
        encode_links_kernel[blocks(len(graph.one), ROWS)](
            *self.hits,
            graph.inner,
            graph.outer,
            graph.one,
            graph.other,
            self.triplets,
            *self._layers(*(f"triplet_{name}" for name in names)),
            self.links,
            FURTHER=further,
            **self.common,
        )

    def update_nodes(self, step: int, logits: Tensor, *, last: bool) -> None:
        """Update the nodes' states; after the last step, score them."""
        names = ("own", "inside", "outside", "bias", "gain", "offset", "last", "last_bias")
        # The last step has no links to update: anything stands for their weights.
        ends = ("score", "score") if last else (f"{step}_link_first", f"{step}_link_second")
        update_nodes_kernel[blocks(len(self.graph.inner), ROWS)](
            self.nodes,
            self.links,
            self.edges,
            self.outgoing,
            self.incoming,
            self.incoming_links,
            *self._layers(*(f"{step}_node_{name}" for name in names), *ends),
            self.to_first,
            self.to_second,
            *self._layers("score", "score_bias", "score_last", "score_last_bias"),
            logits,
            WIDTH=self.network.family.width,
            SCORE=last,
            **self.common,
        )

    def update_links(self, step: int) -> None:
        """Update the links' states from those of their nodes."""
        names = ("own", "bias", "gain", "offset", "last", "last_bias")
        update_links_kernel[blocks(len(self.graph.one), ROWS)](
            self.links,
            self.graph.one,
            self.graph.other,
            self.triplets,
            self.to_first,
            self.to_second,
            *self._layers(*(f"{step}_link_{name}" for name in names)),
            WIDTH=self.network.family.width,
            **self.common,
        )


def scores_of(logits: Tensor) -> Tensor:
    """Return the scores ``[E]``: the logistic function of the logits."""
    return 1 / (1 + torch.exp(-logits.clamp(-30, 30)))
