"""Algorithm 1: the pairs that the radius, the doublet cuts and the limit leave.

N  hits    D  dimensions    L  tiles of LEAF hits each
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.neighbours import near_tiles_kernel, pairs_kernel
from trackserve.engines.gpu.launch import rows
from trackserve.engines.gpu.lists import Pairs, Room

if TYPE_CHECKING:
    from trackserve.engines.gpu.order import DeviceHits
    from trackserve.pipeline.neighbours import DoubletCuts

LEAF = rows(32, 4)
TILES = rows(32, 4)
"""Tiles that are compared with as many by one program."""
TILE_WARPS = 8
WAYS = 8
"""Parts into which the hits are split at a time, about."""
RADIAN, MOST_RADIAN = 4.0, 1e9
"""Where hits are put into tiles, a radian of azimuth counts as a number of radii, at most this one."""
APART = 1e12
"""So far apart are events where hits are put into tiles."""
TILE_PAIRS_A_TILE, PAIRS_A_HIT = 64, 48
"""There is room for this number at first."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Hits in the order of tiles, ``[L * LEAF]``, those beyond the last being hit -1.

    ``points`` ``[L, D, LEAF]`` is NaN where a hit has no finite point or is none.
    """

    rank: Tensor
    points: Tensor
    position: Tensor
    event: Tensor
    low: Tensor
    high: Tensor


def neighbours(
    points: Tensor, hits: DeviceHits, *, radius: float, limit: int, cuts: DoubletCuts, room: Room
) -> Pairs:
    """Return the edges (inner and outer canonical row), in any order.

    As pipeline/neighbours.py: pairs are exactly those of scipy's cKDTree on these ``points`` ``[N, D]``.
    """
    if not len(points):
        return Pairs(
            torch.empty(0, dtype=torch.int64, device=points.device), points.new_zeros(1).long()
        )
    tiles = make_tiles(points, hits, radius=radius, thin=bool(np.isfinite(cuts.slope)))
    sure, possible = _float32_bounds(radius, points.shape[1])
    near = near_tiles(tiles, radius, cuts, room)
    degree = torch.zeros(len(points), dtype=torch.int32, device=points.device)
    # cKDTree keeps pairs whose squared distance is at most this.
    bound = torch.tensor([np.nextafter(radius * radius, np.inf)], dtype=torch.float64)
    bound = bound.to(points.device)

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        degree.zero_()
        pairs_kernel[(max(1, len(near.entries)),)](
            tiles.points,
            tiles.position,
            tiles.rank,
            tiles.event,
            len(tiles.rank),
            near.entries,
            near.count,
            bound,
            sure,
            possible,
            cuts.slope,
            cuts.dphi,
            cuts.z0,
            cuts.dcot,
            entries,
            count,
            places,
            degree,
            D=points.shape[1],
            LEAF=LEAF,
            SLOPE=bool(np.isfinite(cuts.slope)),
            Z0=bool(np.isfinite(cuts.z0)),
            num_warps=4,
            enable_fp_fusion=False,
        )

    what = "pairs of hits close together in the embedding"
    pairs = room.take(what, PAIRS_A_HIT * len(points), fill)
    if limit < len(points) and int(degree.max()) > limit:
        return nearest(pairs, points, degree > limit, limit)
    return pairs


def make_tiles(points: Tensor, hits: DeviceHits, *, radius: float, thin: bool) -> Tiles:
    """Put hits into tiles: thin in azimuth where a cut bounds the step in it."""
    finite = torch.isfinite(points).all(dim=1)
    points = torch.where(finite[:, None], points, torch.nan)
    along = [*points.unbind(1)]
    if thin:
        along.append(hits.position[1] * min(RADIAN * radius, MOST_RADIAN))
    if bool(hits.event[-1] != hits.event[0]):
        along.append(hits.event * APART)
    coordinates = torch.stack([*along, torch.zeros_like(along[0])])
    order = space_order(torch.where(finite, coordinates, torch.inf))
    none = order < 0
    at = order.clamp(min=0)
    dimension = points.shape[1]
    placed = torch.where(none[:, None], torch.nan, points[at])
    position = torch.where(none, 0, hits.position[:, at]).contiguous()
    event = torch.where(none, -1, hits.event[at])
    low, high = _boxes(placed, position, event, none)
    by_axis = placed.reshape(-1, LEAF, dimension).transpose(1, 2).contiguous()
    return Tiles(order.to(torch.int32), by_axis, position, event.to(torch.int32), low, high)


def space_order(coordinates: Tensor) -> Tensor:
    """Return hits ``[L * LEAF]`` so that every LEAF in a row are close together; -1 is none.

    ``coordinates`` ``[A, N]``. All are split into parts of one size along the axis on which they are
    spread widest, each part again along its own, and so on; those that are not finite come last.
    """
    axes, hits = coordinates.shape
    tiles = -(-hits // LEAF)
    levels = max(1, round(np.log(tiles) / np.log(WAYS)))
    parts: list[int] = []
    for level in range(levels):
        rest = -(-tiles // int(np.prod(parts, dtype=np.int64)))
        parts.append(max(1, int(np.ceil(rest ** (1 / (levels - level)) - 1e-9))))
    size = LEAF * int(np.prod(parts, dtype=np.int64))
    filled = torch.full((axes, size), torch.inf, device=coordinates.device)
    filled[:, :hits] = coordinates
    order = torch.arange(size, device=coordinates.device)
    segments = 1
    for split in parts:
        along = filled[:, order].reshape(axes, segments, -1)
        some = torch.isfinite(along)
        spread = torch.where(some, along, -torch.inf).amax(2) - torch.where(
            some, along, torch.inf
        ).amin(2)
        axis = spread.argmax(0)
        key = along[axis, torch.arange(segments, device=axis.device)]
        place = torch.sort(key, dim=1, stable=True).indices
        order = order.reshape(segments, -1).gather(1, place).reshape(-1)
        segments *= split
    return torch.where(order < hits, order, -1)


def _boxes(points: Tensor, position: Tensor, event: Tensor, none: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest ``[D + 5, L]`` of points, phi, r, cot, 1 / r and the event."""
    r, phi, z = position
    usual = (r > 1e-15) & (r < 1e15) & (z.abs() < 1e15)
    cot, inverse = z / r, 1 / r
    lows, highs = [], []

    def add(value: Tensor, counts: Tensor, unknown: Tensor | None = None) -> None:
        low, high = torch.where(counts, value, torch.inf), torch.where(counts, value, -torch.inf)
        if unknown is not None:  # then everything is possible
            low, high = torch.where(unknown, -torch.inf, low), torch.where(unknown, torch.inf, high)
        lows.append(low.reshape(-1, LEAF).amin(1))
        highs.append(high.reshape(-1, LEAF).amax(1))

    some = ~none
    for axis in points.unbind(1):
        add(axis, some & torch.isfinite(axis))
    add(phi, some)
    add(r, some)
    add(cot, some, some & ~usual)
    add(inverse, some, some & ~usual)
    add(event.to(torch.float32), some)
    return torch.stack(lows), torch.stack(highs)


def _float32_bounds(radius: float, dimension: int) -> tuple[float, float]:
    """Return the squared distances below which a float32 pair surely is, and above which it surely isn't, within the radius."""
    square, margin = radius * radius, (dimension + 4) * 2.0**-23
    largest = float(np.finfo(np.float32).max)
    possible = square * (1 + margin) + 1e-36
    return min(square * (1 - margin) - 1e-36, largest), possible if possible < largest else np.inf


def near_tiles(tiles: Tiles, radius: float, cuts: DoubletCuts, room: Room) -> Pairs:
    """Return the pairs of tiles that may hold hits within the radius that pass the cuts."""
    _, possible = _float32_bounds(radius, tiles.points.shape[1])
    count_tiles = tiles.low.shape[1]
    across = -(-count_tiles // TILES)

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        near_tiles_kernel[(across, across)](
            tiles.low,
            tiles.high,
            count_tiles,
            possible,
            cuts.slope,
            cuts.dphi,
            cuts.z0,
            cuts.dcot,
            entries,
            count,
            places,
            A=TILES,
            B=TILES,
            D=tiles.points.shape[1],
            SLOPE=bool(np.isfinite(cuts.slope)),
            Z0=bool(np.isfinite(cuts.z0)),
            num_warps=TILE_WARPS,
            enable_fp_fusion=False,
        )

    return room.take(
        "pairs of groups of hits close together", TILE_PAIRS_A_TILE * count_tiles, fill
    )


def nearest(pairs: Pairs, points: Tensor, crowded: Tensor, limit: int) -> Pairs:
    """Return the pairs that one of both hits wants: all, or if it is ``crowded`` its ``limit`` nearest.

    Distances are float64, added up as cKDTree does; of equally near hits the lower row is nearer.
    """
    inner, outer = pairs.first, pairs.second
    both = crowded[inner] & crowded[outer]
    here, near = torch.cat([inner, outer]), torch.cat([outer, inner])
    pair = torch.arange(len(inner), device=inner.device).repeat(2)
    asked = crowded[here]
    here, near, pair = here[asked], near[asked], pair[asked]
    distance = torch.sqrt(_squared_distances(points, here, near))
    order = torch.sort(near, stable=True).indices
    order = order[torch.sort(distance[order], stable=True).indices]
    order = order[torch.sort(here[order], stable=True).indices]
    here = here[order]
    place = torch.arange(len(here), device=here.device) - torch.searchsorted(here, here)
    wanted = ~both
    wanted[pair[order[place < limit]]] = True
    entries = pairs.entries[wanted]
    return Pairs(entries, torch.tensor([len(entries)], device=entries.device))


def _squared_distances(points: Tensor, one: Tensor, other: Tensor) -> Tensor:
    square = (points[one].double() - points[other].double()) ** 2
    whole = square.shape[1] // 4 * 4
    parts = [square.new_zeros(len(square))] * 4
    for k in range(whole):
        parts[k % 4] = parts[k % 4] + square[:, k]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    for k in range(whole, square.shape[1]):
        total = total + square[:, k]
    return total
