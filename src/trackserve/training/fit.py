"""The loop that all four networks are trained by: shuffled events, checkpoints, a log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from trackserve.errors import InputError
from trackserve.files import whole
from trackserve.training.progress import progress_writers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn


class Loss(Protocol):
    """Gives the loss of one event, by its number, to be lowered; and numbers worth logging."""

    def __call__(
        self, event: int, generator: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and what to log."""


def fit(
    network: nn.Module,
    loss: Loss,
    *,
    name: str,
    events: int,
    updates: int,
    learning_rate: float,
    seed: int,
    folder: Path,
    checkpoint_every: int = 20,
) -> None:
    """Train a network in place for ``updates`` steps of one event each, on the device it lies on.

    The learning rate rises over the first twentieth and falls to zero along a cosine. What is drawn
    at each step depends on the seed and the number of the step alone, so a training that was killed
    goes on from ``folder/NAME.checkpoint`` as if nothing had happened. Metrics are written to the
    folder as :func:`trackserve.training.progress.progress_writers` describes. Raises :class:`InputError`
    where the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_rate, updates=updates))
    parts: dict[str, Any] = {
        "network": network,
        "optimiser": optimiser,
        "scheduler": scheduler,
    }
    checkpoint = folder / f"{name}.checkpoint"
    first = _resume(checkpoint, parts)
    network.train()
    with (
        tqdm(
            total=updates, initial=first, desc=name, unit="update", mininterval=1, disable=None
        ) as bar,
        progress_writers(folder, name) as writers,
    ):
        for step in range(first, updates):
            epoch, place = divmod(step, events)
            event = np.random.default_rng([seed, 0, epoch]).permutation(events)[place]
            value, metrics = loss(int(event), np.random.default_rng([seed, 1, step]))
            if not torch.isfinite(value):
                message = (
                    f"training of the {name} diverged at update {step}; lower its learning_rate"
                )
                raise InputError(message)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            scheduler.step()
            metrics = {"loss": value.item(), **metrics}
            for writer in writers:
                writer.write(step, {"event": int(event), **metrics})
            bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()})
            bar.update()
            if (step + 1) % checkpoint_every == 0 or step + 1 == updates:
                states = {part: each.state_dict() for part, each in parts.items()}
                save(checkpoint, {**states, "step": step + 1})
    network.eval()


def _rate(step: int, updates: int) -> float:
    """Return the learning rate of a step over its highest value."""
    warm_up = max(1, updates // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / max(1, updates - warm_up))))


def _resume(checkpoint: Path, parts: Mapping[str, Any]) -> int:
    """Set the states of network, optimiser and scheduler from a checkpoint; return the next step."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    for part, each in parts.items():
        each.load_state_dict(state[part])
    return int(state["step"])


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint, whole or not at all, so that a kill leaves the old one."""
    with whole(path) as beside:
        torch.save(state, beside)
