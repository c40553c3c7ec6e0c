"""Crossings to clusters of cells: charge along the path in the silicon, in cells, merged.

A particle leaves charge along its path through the depth of the sensor; the charge spreads before
it is collected. Cells of one module that touch form a cluster, whichever particles made them; its
position is the mean of its cells weighted by their signals.

Symbols: H crossings, C cells, M measurements (clusters). Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trackserve.data.conditions import of_volume

if TYPE_CHECKING:
    from trackserve.data.conditions import Conditions
    from trackserve.data.detector import Surfaces
    from trackserve.data.transport import Crossings
    from trackserve.event import Bool, Float32, Float64, Int32, Int64

_FLATTEST = 0.02
"""Least cosine between a path and the normal of a module."""
_NOISE = 0.01
"""Spread of the signal of a cell, in mm of path."""
_LEAST_SIGNAL = 0.001
"""A cell with less signal, in mm of path, is not read out."""
_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight cells around one; the other half finds it."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Clusters of neighbouring cells, and what made them.

    ``surface`` ``[M]`` is the row of the module, ``local`` ``[M, 2]`` the position along u and v,
    weighted by the signals of the cells. ``measurement`` and ``crossing`` ``[L]`` are the links of
    measurements with the crossings that they merge. ``cell_measurement``, ``channel`` ``[C, 2]``
    and ``value`` ``[C]`` (mm of path in the silicon) are the cells, sorted by measurement.
    """

    surface: Int64
    local: Float64
    measurement: Int64
    crossing: Int64
    cell_measurement: Int64
    channel: Int32
    value: Float32


def digitise(
    crossings: Crossings, surfaces: Surfaces, conditions: Conditions, random: np.random.Generator
) -> Measurements:
    """Return the clusters that these crossings leave."""
    crossing, channel, value = _cells(crossings, surfaces, conditions)
    value = value + random.normal(0, _NOISE, len(value))
    read = value > _LEAST_SIGNAL
    found = _clusters(crossing[read], channel[read], value[read], crossings.surface, surfaces)
    blur = of_volume(conditions.blur_u, surfaces.volume_id[found.surface])
    u = found.local[:, 0] + random.normal(0, 1, len(blur)) * blur
    # Where the blur would put a hit beside its module it is at the edge.
    half = surfaces.half_size[found.surface, 0]
    local = np.column_stack([np.clip(u, -half, half), found.local[:, 1]])
    return replace(found, local=local)


def _cells(
    crossings: Crossings, surfaces: Surfaces, conditions: Conditions
) -> tuple[Int64, Int64, Float64]:
    """Return crossing, channels ``[C, 2]`` and signal of the cells along each path."""
    surface = crossings.surface
    volume = surfaces.volume_id[surface]
    rotation, pitch = surfaces.rotation[surface], surfaces.pitch[surface]
    direction = np.einsum("hij,hi->hj", rotation, crossings.momentum)
    size = np.sqrt((direction**2).sum(axis=1))
    cosine = np.maximum(np.abs(direction[:, 2]) / size, _FLATTEST)
    depth = of_volume(conditions.depth, volume)
    spread = np.column_stack(
        [of_volume(values, volume) for values in (conditions.spread_u, conditions.spread_v)]
    )
    # Half of what the path covers along u and v; the charge widens it, to the side it leans to.
    half = 0.5 * direction[:, :2] / (size * cosine)[:, None] * depth[:, None]
    half += 0.5 * np.where(half < 0, -spread, spread)
    middle = surfaces.to_local(surface, crossings.position)[:, :2] + surfaces.half_size[surface]
    limit = surfaces.channels[surface]
    start, end = ((middle + sign * half) / pitch for sign in (-1, 1))
    start, end = (np.clip(each, 0, limit - 1e-6) for each in (start, end))

    # Where the path goes from cell to cell, as a share of its length: at whole numbers of u or v.
    owners, shares = [np.arange(len(surface))] * 2, [np.zeros(len(surface)), np.ones(len(surface))]
    for axis in range(2):
        first, last = start[:, axis], end[:, axis]
        low, high = np.floor(np.minimum(first, last)), np.floor(np.maximum(first, last))
        count = (high - low).astype(np.int64)
        owner = np.repeat(np.arange(len(surface)), count)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        edge = low[owner] + 1 + within
        owners.append(owner)
        shares.append((edge - first[owner]) / (last - first)[owner])
    owner, share = np.concatenate(owners), np.concatenate(shares)
    order = np.lexsort((share, owner))
    owner, share = owner[order], share[order]
    inside = np.flatnonzero(owner[1:] == owner[:-1])
    width, centre = share[inside + 1] - share[inside], (share[inside + 1] + share[inside]) / 2
    kept = width > 0
    crossing, width, centre = owner[inside][kept], width[kept], centre[kept]
    path = start[crossing] + centre[:, None] * (end - start)[crossing]
    length: Float64 = width * (depth / cosine)[crossing]
    return crossing, np.floor(path).astype(np.int64), length


def _clusters(
    crossing: Int64, channel: Int64, value: Float64, surface: Int64, surfaces: Surfaces
) -> Measurements:
    """Join the cells of each module that touch, whichever crossing they come from."""
    width = int(surfaces.channels[:, 1].max()) + 2
    height = int(surfaces.channels[:, 0].max()) + 2
    place = (surface[crossing] * height + channel[:, 0]) * width + channel[:, 1] + 1
    cells, cell = np.unique(place, return_inverse=True)
    pairs = [_touching(cells, du * width + dv) for du, dv in _NEIGHBOURS]
    one, other = (np.concatenate(each) for each in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(cells),) * 2)
    # Cells of one crossing stay together, also where one between them was not read out.
    measurement = connected_components(graph, directed=False)[1]

    module = cells // (height * width)
    at = np.column_stack([cells // width % height, cells % width - 1])
    signal = np.bincount(cell, weights=value, minlength=len(cells))
    _, first, measurement = np.unique(measurement, return_index=True, return_inverse=True)
    # Measurements in the order of their modules, so that the cells lie together.
    order = np.argsort(measurement, kind="stable")
    total = np.bincount(measurement, weights=signal)
    centre = surfaces.at_channels(module, at)
    local = np.column_stack(
        [np.bincount(measurement, weights=signal * centre[:, axis]) / total for axis in range(2)]
    )
    links = np.unique(np.column_stack([measurement[cell], crossing]), axis=0)
    return Measurements(
        surface=module[first],
        local=local,
        measurement=links[:, 0],
        crossing=links[:, 1],
        cell_measurement=measurement[order],
        channel=at[order].astype(np.int32),
        value=signal[order].astype(np.float32),
    )


def _touching(cells: Int64, step: int) -> tuple[Int64, Int64]:
    """Return the rows of the sorted ``cells`` of which one is ``step`` after the other."""
    found = np.searchsorted(cells, cells + step)
    there: Bool = cells[np.minimum(found, len(cells) - 1)] == cells + step
    return np.flatnonzero(there), found[there]
