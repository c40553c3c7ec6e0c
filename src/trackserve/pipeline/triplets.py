"""Algorithm 2: join edges that meet in a hit, and keep those that one particle could have made.

Three hits show what two cannot: whether the particle continues in one direction. A network looks at
each triplet alone, and an edge without a triplet is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import BundleError
from trackserve.event import Float32, Graph, Int64, TripletGraph
from trackserve.pipeline.features import FeatureColumns, cylindrical
from trackserve.pipeline.networks import run_network

if TYPE_CHECKING:
    import onnxruntime

    from trackserve.event import Bool
    from trackserve.pipeline.budget import Limits

PAIRS_AT_ONCE = 1_048_576
"""Pairs of edges that are looked at in one go, to bound memory; the pairs of one edge are not parted."""
LONGEST_CHAIN = 100


@dataclass(frozen=True)
class TripletCuts:
    """What two edges that meet in a hit must fulfil to come from one particle.

    In the plane of r and z, ``kink`` bounds the sine of the angle between them, and ``off`` (mm)
    allows for resolution, over the length of each. Across it, ``slope`` (rad/mm) bounds how their
    dphi/dr differ, and ``dphi`` (rad) allows for resolution. Infinite bounds cut nothing.
    """

    kink: float = np.inf
    off: float = 0.0
    slope: float = np.inf
    dphi: float = 0.0

    def __post_init__(self) -> None:
        if not (self.kink > 0 and self.slope > 0 and self.off >= 0 and self.dphi >= 0):
            message = (
                f"triplet cuts are {self}; expected positive kink and slope, and no negative number"
            )
            raise BundleError(message)


@dataclass(frozen=True)
class TripletSettings:
    """How triplets are made, and the least score, in [0, 1], that one needs.

    What is left is kept where a chain of at least ``chain`` edges runs through it.
    """

    cuts: TripletCuts
    cut: float
    chain: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.cut < 1:
            message = f"triplets.cut is {self.cut}; expected a number between 0 and 1"
            raise BundleError(message)
        if not 2 <= self.chain <= LONGEST_CHAIN:
            message = f"triplets.chain is {self.chain}; expected edges, from 2 to {LONGEST_CHAIN}"
            raise BundleError(message)


def join_edges(
    graph: Graph, columns: FeatureColumns, cuts: TripletCuts, limits: Limits | None = None
) -> Int64:
    """Return the triplets ``[2, T]`` that pass the cuts: rows of the inner and of the outer edge.

    The edges are sorted by their inner, then their outer hit, as :func:`neighbours` returns them; the
    triplets are sorted by their inner, then their outer edge. Raises :class:`BudgetError` beyond the
    ``limits``, if there are any.
    """
    inner, outer = graph.edges
    if limits is not None:
        limits.check_triplets(inner, outer)
    first_edge = np.searchsorted(inner, np.arange(len(graph.features) + 1))
    step = _steps(graph, columns)
    follow = first_edge[outer + 1] - first_edge[outer]  # how many edges follow each edge
    total = np.cumsum(follow)
    kept = [np.empty((2, 0), np.int64)]
    first = 0
    while first < len(inner):
        before = int(total[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + PAIRS_AT_ONCE, side="right")))
        here, count = outer[first:last], follow[first:last]
        one = np.repeat(np.arange(first, last), count)
        other = np.arange(len(one)) + np.repeat(
            first_edge[here] - (np.cumsum(count) - count), count
        )
        passed = passes_cuts(step[:, one], step[:, other], cuts)
        kept.append(np.stack([one[passed], other[passed]]))
        first = last
    return np.concatenate(kept, axis=1)


def _steps(graph: Graph, columns: FeatureColumns) -> Float32:
    """Return dr (mm), dz (mm), dphi (rad) and the length in r and z (mm) of each edge ``[4, E]``."""
    r, phi, z = cylindrical(graph.features, columns)
    inner, outer = graph.edges
    dr, dz, dphi = r[outer] - r[inner], z[outer] - z[inner], phi[outer] - phi[inner]
    full = np.float32(2 * np.pi)
    dphi = np.where(dphi > np.float32(np.pi), dphi - full, dphi)
    dphi = np.where(dphi < -np.float32(np.pi), dphi + full, dphi)
    return np.stack([dr, dz, dphi, np.sqrt(dr * dr + dz * dz)])


def passes_cuts(one: Float32, other: Float32, cuts: TripletCuts) -> Bool:
    """Which pairs of edges, given by their steps ``[4, T]``, pass the cuts."""
    dr, dz, dphi, length = one
    other_dr, other_dz, other_dphi, other_length = other
    passed = np.ones(len(dr), np.bool_)
    if np.isfinite(cuts.kink):
        area = np.abs(dr * other_dz - other_dr * dz)
        passed &= area <= np.float32(cuts.kink) * (length * other_length) + np.float32(cuts.off) * (
            length + other_length
        )
    if np.isfinite(cuts.slope):
        dr, other_dr = np.abs(dr), np.abs(other_dr)
        turn = np.abs(dphi * other_dr - other_dphi * dr)
        passed &= turn <= np.float32(cuts.slope) * (dr * other_dr) + np.float32(cuts.dphi) * (
            dr + other_dr
        )
    result: Bool = passed
    return result


def triplet_logits(
    network: onnxruntime.InferenceSession, graph: Graph, triplets: Int64, at_once: int = 1_048_576
) -> Float32:
    """Return the network's logit ``[T]`` of each triplet."""
    parts = []
    for first in range(0, triplets.shape[1], at_once):
        piece = triplets[:, first : first + at_once]
        edges, place = np.unique(piece, return_inverse=True)
        ends = np.ascontiguousarray(graph.edges[:, edges])
        parts.append(run_network(network, graph.features, ends, place.reshape(piece.shape)))
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def keep_triplets(
    graph: Graph, triplets: Int64, logits: Float32, least: np.float32, chain: int = 2
) -> TripletGraph:
    """Return the graph of the triplets whose logit reaches ``least``, and of their edges alone.

    In a chain, edges follow each other so that each two are such a triplet; what no chain of at least
    ``chain`` edges runs through is left out.
    """
    kept = triplets[:, logits >= least]
    first, second = kept
    before, after = np.ones((2, graph.edges.shape[1]), np.int64)
    for _ in range(chain - 2):  # edges of the longest chain that ends, or begins, with an edge
        one, other = before[first] + 1, after[second] + 1
        np.maximum.at(before, second, one)
        np.maximum.at(after, first, other)
    kept = kept[:, before[first] + after[second] >= chain]
    edges, place = np.unique(kept, return_inverse=True)
    return TripletGraph(
        graph.features,
        graph.edges[:, edges],
        place.reshape(kept.shape).astype(np.int64, copy=False),
    )
