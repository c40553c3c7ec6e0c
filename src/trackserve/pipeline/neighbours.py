"""Algorithm 1: link hits whose embeddings lie within a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from trackserve.errors import BundleError
from trackserve.event import Float32, Graph, Int64
from trackserve.pipeline.features import FeatureColumns, cylindrical

if TYPE_CHECKING:
    from trackserve.event import Bool

HITS_AT_ONCE = 16_384
"""Hits whose neighbours are looked up in one call, to bound memory."""


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
    threads: int = 1,
) -> Graph:
    """Return the graph that links each hit to its nearest neighbours within a radius.

    ``embedding`` ``[N, D]`` and ``features`` ``[N, F]`` are in canonical order. Two hits are linked
    when they are at most ``radius`` apart, one of them is among the ``limit`` nearest of the other,
    they differ in their distance from the origin, and they pass the cuts. A hit whose embedding is
    not finite has no neighbours. Edges are sorted by their inner, then their outer hit.
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
            threads=threads,
        )
        return Graph(features, rows[among.edges])
    hits = len(embedding)
    if hits < 2:
        return Graph(features, np.empty((2, 0), np.int64))
    position = cylindrical(features, columns)
    tree = cKDTree(embedding)
    kept: list[Int64] = []
    for first in range(0, hits, HITS_AT_ONCE):
        block = embedding[first : first + HITS_AT_ONCE]
        # A hit is its own nearest neighbour, hence one more; absent neighbours have index N.
        _, near = tree.query(
            block,
            k=min(limit + 1, hits),
            distance_upper_bound=np.nextafter(radius, np.inf),
            workers=threads,
        )
        near = np.asarray(near).reshape(len(block), -1)
        here = np.broadcast_to(np.arange(first, first + len(block))[:, None], near.shape)
        found = (near < hits) & (near != here)
        inner = np.minimum(here, near)[found]
        outer = np.maximum(here, near)[found]
        passed = passes_cuts(position, inner, outer, cuts)
        kept.append(inner[passed] * hits + outer[passed])
    pair = np.unique(np.concatenate(kept))
    return Graph(features, np.stack([pair // hits, pair % hits]))


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
