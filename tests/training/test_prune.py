"""Pruning keeps the units that count, in the filter and in the triplet classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trackserve.pipeline.features import FeatureColumns
from trackserve.training.networks import Filter, TripletFilter
from trackserve.training.prune import pruned

COLUMNS = FeatureColumns(("r", "phi", "z", "charge"), (1000.0, 3.0, 1000.0, 1.0), {})
EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
TRIPLETS = torch.tensor([[0, 1, 2], [1, 2, 3]])
NETWORKS = {
    "filter": (lambda: Filter(COLUMNS, width=16, layers=3), (EDGES,)),
    "triplets": (lambda: TripletFilter(COLUMNS, width=16, layers=2), (EDGES, TRIPLETS)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network, and features with what else it is given."""
    torch.manual_seed(0)
    make, given = NETWORKS[request.param]
    r = np.sort(np.random.default_rng(0).uniform(0.03, 1, 6))
    features = np.stack([r, 0.1 * r, 2 * r, np.ones(6)], axis=1).astype(np.float32)
    return make(), (torch.from_numpy(features), *given)


def hidden_layers(network):
    """The linear layers that lead from one hidden layer to the next or to the logit."""
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    return layers[3:] if isinstance(network, Filter) else layers[1:]


def test_units_that_lead_nowhere_are_dropped_without_a_trace(case):
    network, given = case
    for layer in hidden_layers(network):
        layer.weight.data[:, torch.randperm(16)[:6]] = 0
    narrow = pruned(network, 10)
    assert {layer.in_features for layer in hidden_layers(narrow)} == {10}
    assert torch.allclose(narrow(*given), network(*given), atol=1e-6)
    assert not torch.allclose(pruned(network, 9)(*given), network(*given), atol=1e-6)


def test_a_pruned_network_is_one_that_was_made_narrow(case):
    network, given = case
    narrow = pruned(network, 6)
    made = type(network)(COLUMNS, width=6, layers=len(hidden_layers(network)))
    made.load_state_dict(narrow.state_dict())
    assert torch.equal(made(*given), narrow(*given))
    assert str(made) == str(narrow)


def test_the_network_itself_stays_as_it_is_and_the_narrow_one_learns(case):
    network, given = case
    before = [p.clone() for p in network.parameters()]
    narrow = pruned(network, 8)
    narrow(*given).sum().backward()
    torch.optim.SGD(narrow.parameters(), lr=0.1).step()
    assert all(p.requires_grad and p.is_leaf for p in narrow.parameters())
    assert all(map(torch.equal, before, network.parameters()))
