"""Algorithm 2 and network 3: edges that meet in a hit, what the cuts and the network leave, chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.triplets import join_kernel, triplet_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.engines.gpu.lists import Kept, Pairs, Room, begins, sort

if TYPE_CHECKING:
    from trackserve.engines.gpu.order import NetworkHits
    from trackserve.engines.gpu.weights import Network
    from trackserve.pipeline.budget import Limits
    from trackserve.pipeline.triplets import TripletCuts

PAIRS = rows(256)
"""Pairs of edges that a join program looks at."""
TRIPLETS = rows(128)
"""Triplets that a program of the network scores."""
PASS_CUTS, PASS = 8, 4
"""At first there is room for one pair of edges in this number to pass the cuts, and one triplet the network."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Edges ``[E]`` by their hits, and triplets ``[T]`` by their edges, both sorted."""

    inner: Tensor
    outer: Tensor
    one: Tensor
    other: Tensor


def join_edges(
    edges: Pairs, position: Tensor, cuts: TripletCuts, *, room: Room, limits: Limits
) -> Pairs:
    """Return the triplets (rows of the inner and of the outer edge) that pass the cuts, in any order.

    ``edges`` are sorted; ``position`` is ``[3, N]``. Raises :class:`BudgetError` where more pairs of
    edges meet than ``limits`` allow.
    """
    inner, outer = edges.first, edges.second
    if not len(inner):
        return edges
    first_edge = begins(inner, position.shape[1])
    onward = first_edge[outer + 1] - first_edge[outer]
    ends = torch.cumsum(onward, 0)
    pairs = int(ends[-1])
    if pairs > limits.triplets:
        raise limits.over_triplets()
    steps = _steps(inner, outer, position)

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        join_kernel[blocks(pairs, PAIRS)](
            outer,
            first_edge,
            ends,
            len(inner),
            steps,
            cuts.kink,
            cuts.off,
            cuts.slope,
            cuts.dphi,
            entries,
            count,
            places,
            B=PAIRS,
            SEARCH=len(inner).bit_length(),
            KINK=bool(np.isfinite(cuts.kink)),
            SLOPE=bool(np.isfinite(cuts.slope)),
            num_warps=4,
            enable_fp_fusion=False,
        )

    return room.take("triplets that pass the cuts", pairs // PASS_CUTS + PAIRS, fill)


def _steps(inner: Tensor, outer: Tensor, position: Tensor) -> Tensor:
    """Return dr (mm), dz (mm), dphi (rad) and the length in r and z (mm) of each edge ``[4, E]``.

    One rounding at a time, in numpy's order: the cuts have to be the reference's to the last bit.
    """
    r, phi, z = position
    dr, dz, dphi = r[outer] - r[inner], z[outer] - z[inner], phi[outer] - phi[inner]
    half, full = float(np.float32(np.pi)), float(np.float32(2 * np.pi))
    dphi = torch.where(dphi > half, dphi - full, dphi)
    dphi = torch.where(dphi < -half, dphi + full, dphi)
    return torch.stack([dr, dz, dphi, torch.sqrt(dr * dr + dz * dz)])


def keep_triplets(
    network: Network,
    hits: NetworkHits,
    edges: Pairs,
    triplets: Pairs,
    *,
    least: np.float32,
    room: Room,
) -> Pairs:
    """Return the triplets whose logit is at least ``least``, sorted."""

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        kept = Kept(float(least), entries, count, places)
        _launch(network, hits, edges, triplets, hits.seen, kept=kept)

    guess = len(triplets.entries) // PASS + TRIPLETS
    return sort(room.take("triplets that pass the network", guess, fill))


def triplet_logits(network: Network, hits: NetworkHits, edges: Pairs, triplets: Pairs) -> Tensor:
    """Return the logit of each triplet ``[T]``."""
    logits = torch.empty(len(triplets.entries), device=hits.seen.device)
    _launch(network, hits, edges, triplets, logits, kept=None)
    return logits


def _launch(
    network: Network,
    hits: NetworkHits,
    edges: Pairs,
    triplets: Pairs,
    logits: Tensor,
    *,
    kept: Kept | None,
) -> None:
    into = kept or Kept(0.0, triplets.entries, triplets.count, 0)
    triplet_kernel[blocks(len(triplets.entries), TRIPLETS)](
        *hits,
        edges.first,
        edges.second,
        triplets.entries,
        triplets.count,
        *network.perceptron,
        into.least,
        logits,
        into.entries,
        into.count,
        into.room,
        B=TRIPLETS,
        W=network.wide,
        LAYERS=network.family.depth - 1,
        FURTHER=network.further,
        PRECISION=network.dot,
        LOGITS=kept is None,
        num_warps=4,
    )


def keep_chains(edges: Pairs, triplets: Pairs, chain: int) -> Joined:
    """Return the triplets through which a chain of at least ``chain`` edges runs, and their edges.

    As keep_triplets of pipeline/triplets.py: ``before`` and ``after`` are the edges of the longest
    chain, up to ``chain``, that ends or begins with an edge.
    """
    one, other = triplets.first, triplets.second
    count = len(edges.entries)
    before = torch.ones(count, dtype=torch.int32, device=one.device)
    after = torch.ones_like(before)
    for _ in range(chain - 2):
        longer_before, longer_after = before[one] + 1, after[other] + 1
        before = before.scatter_reduce(0, other, longer_before, "amax")
        after = after.scatter_reduce(0, one, longer_after, "amax")
    kept = before[one] + after[other] >= chain
    one, other = one[kept], other[kept]
    used = torch.zeros(count, dtype=torch.bool, device=one.device)
    used[one] = True
    used[other] = True
    number = torch.cumsum(used, 0) - 1
    return Joined(edges.first[used], edges.second[used], number[one], number[other])
