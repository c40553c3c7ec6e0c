from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from trackserve.errors import InputError
from trackserve.training.fit import fit


class LineLoss:
    """The squared distance of a line from points that are drawn again at each step."""

    def __init__(
        self, network: nn.Module, *, stop_at: int | None = None, worth: float = 1.0
    ) -> None:
        self.network, self.stop_at, self.worth, self.events = network, stop_at, worth, []

    def __call__(self, event, generator):
        if len(self.events) == self.stop_at:
            raise KeyboardInterrupt
        self.events.append(event)
        x = torch.from_numpy(generator.normal(size=(64, 1)).astype(np.float32))
        loss = ((self.network(x) - (2 * x + event)) ** 2).mean() * self.worth
        return loss, {"events_seen": float(len(self.events))}


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def trained(folder, *, stop_at=None, seed=1, **how):
    """Train a line in a folder; if stopped, go on with a network that knows nothing."""
    folder.mkdir(exist_ok=True)
    settings = {"name": "line", "events": 3, "updates": 50, "learning_rate": 0.1, "seed": seed}
    network = line()
    loss = LineLoss(network, stop_at=stop_at)
    try:
        fit(network, loss, **(settings | how), folder=folder)
    except KeyboardInterrupt:
        return trained(folder, seed=seed, **how)
    return network, loss


def weights(network: nn.Module) -> list[list[float]]:
    return [parameter.detach().flatten().tolist() for parameter in network.parameters()]


def test_training_lowers_the_loss_and_logs_it(tmp_path):
    network, loss = trained(tmp_path)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in logged] == list(range(50))
    assert [m["event"] for m in logged] == loss.events
    assert np.mean([m["loss"] for m in logged[-10:]]) < np.mean([m["loss"] for m in logged[:5]]) / 3
    assert not network.training


def test_each_epoch_takes_every_event_once_in_an_order_of_its_own(tmp_path):
    _, loss = trained(tmp_path, events=5)
    epochs = [loss.events[i : i + 5] for i in range(0, 50, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, again, other = (
        weights(trained(tmp_path / name, seed=seed)[0])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


@pytest.mark.parametrize("stop_at", [0, 1, 10, 19, 20, 25, 49])
def test_a_stopped_training_goes_on_from_its_checkpoint(tmp_path, stop_at):
    expected, _ = trained(tmp_path / "whole", checkpoint_every=10)
    found, loss = trained(tmp_path / "stopped", stop_at=stop_at, checkpoint_every=10)
    assert len(loss.events) == 50 - stop_at // 10 * 10
    assert weights(found) == weights(expected)


def test_a_finished_training_is_not_repeated(tmp_path):
    expected, _ = trained(tmp_path)
    found, loss = trained(tmp_path)
    assert loss.events == []
    assert weights(found) == weights(expected)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    network = line()
    before = weights(network)
    with pytest.raises(InputError, match="the line diverged at update 0; lower its learning_rate"):
        fit(
            network,
            LineLoss(network, worth=float("nan")),
            name="line",
            events=1,
            updates=5,
            learning_rate=1.0,
            seed=1,
            folder=tmp_path,
        )
    assert weights(network) == before
