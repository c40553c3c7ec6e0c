"""Pruning the filter and the triplet classifier: narrower layers, of the units that count most.

A unit counts as much as the weights that lead from it to the next layer. The narrower network starts
near the wider one, and is trained on.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from torch import nn

from trackserve.training.networks import Filter, TripletFilter

AnyFilter = TypeVar("AnyFilter", Filter, TripletFilter)


def pruned(network: AnyFilter, width: int) -> AnyFilter:
    """Return a copy of a network with ``width`` units in each hidden layer, those that count most."""
    network = deepcopy(network)
    for layer, (onwards, *_) in pairwise(_layers(network)):
        units = onwards.weight.detach().norm(dim=0).topk(width).indices.sort().values
        for part in layer:
            part.weight = nn.Parameter(part.weight.detach()[units])
            if part.bias is not None:
                part.bias = nn.Parameter(part.bias.detach()[units])
            part.out_features = width
        onwards.weight = nn.Parameter(onwards.weight.detach()[:, units])
        onwards.in_features = width
    return network


def _layers(network: Filter | TripletFilter) -> list[list[nn.Linear]]:
    """Return the linear layers in turn; the filter's first one is in three parts."""
    if isinstance(network, Filter):
        first = network.first
        return [[first.pair, first.inner, first.outer], *_linear(network.rest)]
    return _linear(network.network)


def _linear(network: nn.Module) -> list[list[nn.Linear]]:
    return [[part] for part in network.modules() if isinstance(part, nn.Linear)]
