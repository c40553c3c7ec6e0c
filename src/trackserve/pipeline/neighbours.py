"""Algorithm 1: link hits whose embeddings lie within a radius."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import BundleError
from trackserve.event import Float32, Float64, Graph, Int64
from trackserve.pipeline.budget import EdgeMeter, Limits
from trackserve.pipeline.features import FeatureColumns, cylindrical

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

    from trackserve.event import Bool

HITS_AT_ONCE = 4096
SPARE = 8
"""Nearest hits that are looked up beyond the limit: a hit itself, and pairs that do not pass."""
PAIRS_AT_ONCE = 4_000_000
"""Hits and, of the pairs within the radius, how many are looked at in one go, to bound memory."""


@dataclass(frozen=True)
class DoubletCuts:
    """What a pair of hits must fulfil to come from a particle made near the beam line.

    ``slope`` bounds |dphi / dr| (rad/mm), the curvature of the track in the transverse plane;
    ``z0`` bounds |z| (mm) where the straight line through both hits meets the beam line.
    Infinite bounds cut nothing. ``dphi`` (rad) and ``dcot`` (in the cotangent of the polar angle)
    are allowed on top, for what resolution and scattering do to hits close together.
    """

    slope: float = np.inf
    z0: float = np.inf
    dphi: float = 0.0
    dcot: float = 0.0

    def __post_init__(self) -> None:
        if not (self.slope > 0 and self.z0 > 0 and self.dphi >= 0 and self.dcot >= 0):
            message = (
                f"doublet cuts are {self}; expected positive slope and z0, and no negative number"
            )
            raise BundleError(message)


def neighbours(
    embedding: Float32,
    features: Float32,
    columns: FeatureColumns,
    *,
    radius: float,
    limit: int,
    cuts: DoubletCuts,
    limits: Limits | None = None,
    threads: int = 1,
) -> Graph:
    """Return the graph that links each hit to its nearest neighbours within a radius.

    ``embedding`` ``[N, D]`` and ``features`` ``[N, F]`` are in canonical order. Two hits are linked
    when they are at most ``radius`` apart, differ in their distance from the origin, pass the cuts
    and one of them is among the ``limit`` nearest such hits of the other; of equally near ones the
    lower row is nearer. A hit whose embedding is not finite has no neighbours. Edges are sorted by
    their inner, then their outer hit. Raises :class:`BudgetError` beyond the ``limits``, if there are any.
    """
    finite = np.isfinite(embedding).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(finite)
        among = neighbours(
            embedding[rows],
            features[rows],
            columns,
            radius=radius,
            limit=limit,
            cuts=cuts,
            limits=limits,
            threads=threads,
        )
        return Graph(features, rows[among.edges])
    hits = len(embedding)
    search = _Search(
        embedding=embedding,
        tree=_tree(embedding),
        position=cylindrical(features, columns),
        radius=radius,
        limit=limit,
        cuts=cuts,
        meter=None if limits is None else EdgeMeter(limits),
    )
    with ThreadPoolExecutor(threads) as pool:
        blocks = range(0, hits, HITS_AT_ONCE)
        wanted = list(pool.map(search.block, blocks, (min(b + HITS_AT_ONCE, hits) for b in blocks)))
    pair = np.unique(np.concatenate([np.empty(0, np.int64), *wanted]))
    if limits is not None:
        limits.check_edges(len(pair))
    return Graph(features, np.stack(np.divmod(pair, max(hits, 1))))


def _tree(points: Float32) -> cKDTree:
    """Return the points ``[N, D]`` in a tree."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - slow to import, and not every engine needs it

    return cKDTree(points)


@dataclass(frozen=True, eq=False)
class _Search:
    """The search around the hits of a block; pairs are numbers, inner * hits + outer."""

    embedding: Float32
    tree: cKDTree
    position: tuple[Float32, Float32, Float32]
    radius: float
    limit: int
    cuts: DoubletCuts
    meter: EdgeMeter | None

    def block(self, first: int, last: int) -> Int64:
        """Return the pairs that the hits [first, last) want."""
        if self.meter is not None:
            self.meter.check()
        pair = self._few(first, last)
        if pair is None:
            block = _tree(self.embedding[first:last])
            if last - first > 1 and block.count_neighbors(self.tree, self.radius) > PAIRS_AT_ONCE:
                middle = (first + last) // 2
                return np.concatenate([self.block(first, middle), self.block(middle, last)])
            pair = self._all(block, first)
        if self.meter is not None:
            self.meter.add(len(pair))
        return pair

    def _few(self, first: int, last: int) -> Int64 | None:
        """Return the pairs from a look at the nearest few alone, None where that may not do."""
        hits, limit = len(self.embedding), self.limit
        if (
            np.isfinite([self.cuts.slope, self.cuts.z0]).any()
            or (last - first) * limit >= PAIRS_AT_ONCE
        ):
            return None
        # Nearly all pairs pass, so the limit's nearest are among the first few.
        distance, near = self.tree.query(
            self.embedding[first:last],
            k=min(limit + SPARE, hits),
            distance_upper_bound=np.nextafter(self.radius, np.inf),
        )
        near = np.asarray(near).reshape(last - first, -1)
        distance = np.asarray(distance).reshape(near.shape)
        here = np.broadcast_to(np.arange(first, last)[:, None], near.shape)
        there = (near < hits) & (near != here)
        there[there] = passes_cuts(
            self.position, np.minimum(here, near)[there], np.maximum(here, near)[there], self.cuts
        )
        surely = there & (distance < distance[:, -1:])
        enough = (surely.sum(axis=1) >= limit) | (near[:, -1] == hits) | (near.shape[1] == hits)
        if not enough.all():
            return None
        return self._nearest(here[there], near[there], distance[there])

    def _all(self, block: cKDTree, first: int) -> Int64:
        """Return the pairs from a look at all hits within the radius of a block that begins here."""
        found = block.sparse_distance_matrix(self.tree, self.radius, output_type="ndarray")
        here, near, distance = found["i"] + first, found["j"], found["v"]
        inner, outer = np.minimum(here, near), np.maximum(here, near)
        passed = passes_cuts(self.position, inner, outer, self.cuts)
        return self._nearest(here[passed], near[passed], distance[passed])

    def _nearest(self, here: Int64, near: Int64, distance: Float64) -> Int64:
        pair: Int64 = np.minimum(here, near) * len(self.embedding) + np.maximum(here, near)
        return pair[nearest(here, near, distance, self.limit)]


def nearest(here: Int64, near: Int64, distance: Float64, limit: int) -> Int64:
    """Return which of the neighbours ``near`` of hits ``here`` are among a hit's ``limit`` nearest."""
    order = np.lexsort((near, distance, here))
    first = np.searchsorted(here[order], here[order])
    closest: Int64 = order[np.arange(len(order)) - first < limit]
    return closest


def passes_cuts(
    position: tuple[Float32, Float32, Float32], inner: Int64, outer: Int64, cuts: DoubletCuts
) -> Bool:
    """Which pairs differ in distance from the origin and pass the doublet cuts."""
    r, phi, z = position
    r_inner, r_outer, z_inner, z_outer = r[inner], r[outer], z[inner], z[outer]
    passed = r_inner * r_inner + z_inner * z_inner < r_outer * r_outer + z_outer * z_outer
    dr = r_outer - r_inner
    if np.isfinite(cuts.slope):
        turn = np.abs(phi[outer] - phi[inner])
        turn = np.minimum(turn, np.float32(2 * np.pi) - turn)
        passed &= turn <= np.float32(cuts.slope) * np.abs(dr) + np.float32(cuts.dphi)
    if np.isfinite(cuts.z0):
        # z0 = z_inner - r_inner dz/dr, multiplied by dr so that hits at one radius are no special case;
        # |cot(theta_inner) - cot(theta_outer)| = lever / (r_inner r_outer)
        lever = np.abs(z_inner * r_outer - z_outer * r_inner)
        passed &= lever <= np.float32(cuts.z0) * np.abs(dr) + np.float32(cuts.dcot) * (
            r_inner * r_outer
        )
    result: Bool = passed
    return result
