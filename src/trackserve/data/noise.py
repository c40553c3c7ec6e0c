"""Noise: hits that no listed particle made, as many in each volume as in TrackML's events.

Symbols: N hits, C cells, E extra hits. Lengths in mm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.conditions import VOLUMES
from trackserve.data.readout import NO_CROSSING, Readout

if TYPE_CHECKING:
    from trackserve.data.conditions import Conditions
    from trackserve.data.detector import Surfaces
    from trackserve.event import Bool, Float64, Int64

_RING_WIDTH = 10.0
"""Modules of a layer whose centres are as far from the beam, to this precision, form a ring."""
_LARGEST = 60
"""Larger clusters count as of this many cells where clusters are drawn."""


def add_noise(
    readout: Readout,
    noise: Bool,
    share: float,
    *,
    surfaces: Surfaces,
    conditions: Conditions,
    alive: Bool,
    random: np.random.Generator,
) -> Readout:
    """Add noise hits until they are this ``share`` of all hits.

    ``noise`` ``[N]`` marks hits that are noise already: of particles that are not listed. Each
    volume gets its share of the noise, ring by ring as real hits are. A noise hit has the cells of
    some real hit of its volume, somewhere on the module.
    """
    volume_id = surfaces.volume_id[readout.surface]
    wanted = share / (1 - share) * np.count_nonzero(~noise)
    like = np.concatenate(
        [
            _like(readout, volume_id == volume, noise, (wanted * part, cells), random)
            for volume, part, cells in zip(
                VOLUMES,
                np.array(conditions.noise_volumes) / sum(conditions.noise_volumes),
                conditions.noise_cells,
                strict=True,
            )
        ]
    )
    if len(like) == 0:
        return readout
    extra = len(like)
    ring = readout.surface[random.permutation(like)]
    # The ring of one hit and the cells of another of the same volume.
    by_volume = np.lexsort((random.random(extra), surfaces.volume_id[ring]))
    surface = np.empty(extra, dtype=np.int64)
    surface[np.argsort(volume_id[like], kind="stable")] = _module_of_same_ring(
        ring[by_volume], surfaces, alive, random
    )
    first = np.searchsorted(readout.cell_hit, like)
    count = np.searchsorted(readout.cell_hit, like, side="right") - first
    hit = np.repeat(np.arange(extra), count)
    cell = first[hit] + np.arange(len(hit)) - np.repeat(np.cumsum(count) - count, count)
    channel, value = readout.channel[cell].astype(np.int64), readout.value[cell]
    start = np.cumsum(count) - count
    low, high = (at.reduceat(channel, start, axis=0) for at in (np.minimum, np.maximum))
    room = np.maximum(surfaces.channels[surface] - (high - low) - 1, 0)
    corner = np.minimum(surfaces.channels_at(surface, _uniform_on(surfaces, surface, random)), room)
    channel = np.minimum(channel + (corner - low)[hit], surfaces.channels[surface][hit] - 1)

    centres = surfaces.at_channels(surface[hit], channel)
    signal = np.bincount(hit, weights=value)
    local = np.column_stack(
        [np.bincount(hit, weights=value * centres[:, axis]) / signal for axis in range(2)]
    )
    return Readout(
        surface=np.concatenate([readout.surface, surface]),
        local=np.concatenate([readout.local, local]),
        crossing=np.concatenate([readout.crossing, np.full(extra, NO_CROSSING)]),
        cell_hit=np.concatenate([readout.cell_hit, len(readout) + hit]),
        channel=np.concatenate([readout.channel, channel.astype(np.int32)]),
        value=np.concatenate([readout.value, value]),
    )


def _like(
    readout: Readout,
    inside: Bool,
    noise: Bool,
    wanted: tuple[float, float],
    random: np.random.Generator,
) -> Int64:
    """Draw hits of a volume whose cells noise takes, to get this many with this mean of cells."""
    number, mean = wanted
    known = np.flatnonzero(inside & ~noise)
    extra = max(0, round(number) - int(np.count_nonzero(inside & noise)))
    if len(known) == 0 or extra == 0:
        return np.empty(0, dtype=np.int64)
    cells = np.bincount(readout.cell_hit, minlength=len(readout))[known]
    weight = _tilted(np.minimum(cells, _LARGEST), mean)
    drawn: Int64 = random.choice(known, size=extra, p=weight)
    return drawn


def _tilted(cells: Int64, mean: float) -> Float64:
    """Return weights that sum to 1 and give ``cells`` this mean, as near to equal as that allows.

    They are proportional to exp(k cells); |k| is at most 2.
    """
    low, high = -2.0, 2.0
    weight = np.full(len(cells), 1 / len(cells))
    for _ in range(40):
        k = (low + high) / 2
        weight = np.exp(k * (cells - cells.max() if k > 0 else cells - cells.min()))
        weight /= weight.sum()
        low, high = (k, high) if weight @ cells < mean else (low, k)
    return weight


def _module_of_same_ring(
    surface: Int64, surfaces: Surfaces, alive: Bool, random: np.random.Generator
) -> Int64:
    """Draw for each module a living one of the same layer and distance from the beam."""
    radius = np.hypot(surfaces.centre[:, 0], surfaces.centre[:, 1])
    place = np.column_stack(
        [surfaces.volume_id, surfaces.layer_id, np.rint(radius / _RING_WIDTH)]
    ).astype(np.int64)
    _, ring = np.unique(place, axis=0, return_inverse=True)
    by_ring = np.argsort(np.where(alive, ring, ring.max() + 1), kind="stable")
    start = np.searchsorted(ring[by_ring][: int(alive.sum())], np.arange(ring.max() + 2))
    chosen = ring[surface]
    drawn: Int64 = by_ring[random.integers(start[chosen], start[chosen + 1])]
    return drawn


def _uniform_on(surfaces: Surfaces, surface: Int64, random: np.random.Generator) -> Float64:
    """Draw u, v ``[N, 2]`` uniformly over the area of each module, a trapezoid."""
    lower, upper = surfaces.half_width[surface].T
    share = random.random(len(surface))
    height = share * (lower + upper) / (lower + np.sqrt(lower**2 + share * (upper**2 - lower**2)))
    half_width = lower + (upper - lower) * height
    u = half_width * random.uniform(-1, 1, len(surface))
    return np.column_stack([u, surfaces.half_length[surface] * (2 * height - 1)])
