"""Algorithm 3: from scored edges to track candidates, as pipeline/components.py, without its sequence.

The walk takes edges from the best down, one inwards and one outwards of each hit. Whatever order they
are looked at, an edge that is the best left at both its ends is taken; so all of those are taken at
once, what they exclude is dropped, and so on until none is left. That is the same set of edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trackserve.pipeline.components import TrackBuilder

NO_TRACK = -1


def taken_edges(inner: Tensor, outer: Tensor, scores: Tensor, builder: TrackBuilder) -> Tensor:
    """Return the rows of the edges that tracks are made of; ``inner``, ``outer`` ``[E]`` are sorted."""
    cut = torch.tensor(builder.cut, dtype=torch.float32)
    passed = torch.nonzero(scores >= cut).flatten()
    if builder.method == "walk":
        # Scores are in [0, 1], so their bits are in their order; the first edge breaks ties.
        rows = torch.arange(len(passed), device=inner.device)
        bits = scores[passed].view(torch.int32).to(torch.int64)
        key = (bits << 32) | (0xFFFFFFFF - rows)
        passed = passed[best_steps(inner[passed], outer[passed], key)]
    return passed


def best_steps(inner: Tensor, outer: Tensor, key: Tensor) -> Tensor:
    """Return which edges ``[E]`` are taken, the one of the largest ``key`` first.

    Keys are positive and differ; what has an inner and an outer end may be hits or pieces of tracks.
    """
    taken = torch.zeros(len(inner), dtype=torch.bool, device=inner.device)
    ends = int(torch.maximum(inner.max(), outer.max())) + 1 if len(inner) else 0
    left = torch.arange(len(inner), device=inner.device)
    while len(left):
        best_out, best_in = torch.zeros(2, ends, dtype=torch.int64, device=inner.device)
        here, there, value = inner[left], outer[left], key[left]
        best_out.scatter_reduce_(0, here, value, "amax")
        best_in.scatter_reduce_(0, there, value, "amax")
        best = (best_out[here] == value) & (best_in[there] == value)
        taken[left[best]] = True
        busy_out, busy_in = torch.zeros(2, ends, dtype=torch.bool, device=inner.device)
        busy_out[here[best]] = True
        busy_in[there[best]] = True
        left = left[~(busy_out[here] | busy_in[there])]
    return taken


def components(inner: Tensor, outer: Tensor, hits: int) -> Tensor:
    """Return the lowest hit ``[N]`` that is connected with each hit.

    Each set's lowest hit is hooked to the lowest that an edge shows to its members, and every hit
    jumps to the lowest of its set; until nothing changes. Paths need one round.
    """
    lowest = torch.arange(hits, device=inner.device)
    while True:
        a, b = lowest[inner], lowest[outer]
        if bool((a == b).all()):
            return lowest
        hooked = lowest.scatter_reduce(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
        while True:
            further = hooked[hooked]
            if bool((further == hooked).all()):
                break
            hooked = further
        lowest = hooked


def number_sets(lowest: Tensor, min_size: int) -> Tensor:
    """Return the number ``[N]`` of each one's set, those of at least ``min_size``, by their lowest."""
    size = torch.zeros_like(lowest).scatter_add_(0, lowest, torch.ones_like(lowest))
    first = (lowest == torch.arange(len(lowest), device=lowest.device)) & (size >= min_size)
    number = torch.cumsum(first, 0) - 1
    return torch.where(size[lowest] >= min_size, number[lowest], NO_TRACK)


def keep_tracks(labels: Tensor, kept: Tensor) -> Tensor:
    """Return labels without the tracks ``[T]`` that are not kept, the others numbered without gaps."""
    number = torch.where(kept, torch.cumsum(kept, 0) - 1, NO_TRACK)
    return torch.cat([number, number.new_full((1,), NO_TRACK)])[labels]
