"""From clusters of cells to the hits of an event: attribution to particles, noise, truth.

Symbols: N hits, C cells. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.trackml import Cells, SimulatedEvent, cluster_shapes, is_primary
from trackserve.data.weights import hit_weights
from trackserve.event import NOISE, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from trackserve.data.detector import Surfaces
    from trackserve.data.generate import Generated
    from trackserve.data.transport import Transported
    from trackserve.event import Bool, Float32, Float64, Int32, Int64

_TWO_CELLS = 0.3
"""Share of noise hits with two neighbouring cells instead of one."""
_NO_CROSSING = -1
_RING_WIDTH = 10.0
"""Modules of a layer whose centres are as far from the beam, to this precision, form a ring."""


@dataclass(frozen=True, eq=False)
class Readout:
    """What the detector reads out, before hits are numbered.

    For each hit its module (row of ``Surfaces``), its position along u and v ``[N, 2]`` and the row
    of the crossing it is attributed to (-1 for noise); for each cell the row of its hit (sorted),
    its channels ``[C, 2]`` and its value.
    """

    surface: Int64
    local: Float64
    crossing: Int64
    cell_hit: Int64
    channel: Int32
    value: Float32

    def __len__(self) -> int:
        return len(self.surface)


def read_out(transported: Transported, surfaces: Surfaces, alive: Bool) -> Readout:
    """Return the clusters on modules that are ``alive`` ``[S]``.

    A cluster that several particles made is attributed to the one with the longest path through the
    silicon, which on average leaves most of the signal; on a tie to the first.
    """
    measurements, crossings = transported.measurements, transported.crossings
    normal = surfaces.rotation[crossings.surface, :, 2]
    along = np.abs(np.einsum("hi,hi->h", normal, crossings.momentum))
    path = np.sqrt((crossings.momentum**2).sum(axis=1)) / np.maximum(along, 1e-9)
    longest_first = np.lexsort(
        (measurements.crossing, -path[measurements.crossing], measurements.measurement)
    )
    _, first = np.unique(measurements.measurement[longest_first], return_index=True)
    crossing = measurements.crossing[longest_first[first]]

    kept = alive[measurements.surface]
    row = np.cumsum(kept) - 1
    cells = kept[measurements.cell_measurement]
    return Readout(
        surface=measurements.surface[kept],
        local=measurements.local[kept],
        crossing=crossing[kept],
        cell_hit=row[measurements.cell_measurement[cells]],
        channel=measurements.channel[cells],
        value=measurements.value[cells],
    )


def smear(
    readout: Readout, transported: Transported, surfaces: Surfaces, random: np.random.Generator
) -> Readout:
    """Move hits to where the particle crossed, blurred by pitch / sqrt(12); cells stay."""
    true = surfaces.to_local(readout.surface, transported.crossings.position[readout.crossing])
    blur = surfaces.pitch[readout.surface] / np.sqrt(12)
    return replace(readout, local=random.normal(true[:, :2], blur))


def add_noise(
    readout: Readout,
    share: float,
    surfaces: Surfaces,
    alive: Bool,
    random: np.random.Generator,
) -> Readout:
    """Add noise hits until they are this ``share`` of all hits.

    They are as frequent, ring by ring, as real hits: what a real detector reads out beside the
    simulated particles (softer ones, showers, decays in flight) falls off from the beam as they do,
    and noise is hardest to tell apart where hits are dense. On its module a noise hit lies
    anywhere, with one or two cells, each with the value of some real cell of the same ring.
    """
    extra = round(share / (1 - share) * len(readout))
    if extra == 0:
        return readout
    like = random.integers(len(readout), size=extra)
    surface = _module_of_same_ring(readout.surface[like], surfaces, alive, random)
    channel = surfaces.channels_at(surface, _uniform_on(surfaces, surface, random))
    cells_before = np.searchsorted(readout.cell_hit, like)
    cells_of_like = np.searchsorted(readout.cell_hit, like, side="right") - cells_before
    size = np.where(random.random(extra) < _TWO_CELLS, 2, 1)
    hit = np.repeat(np.arange(extra), size)
    second = np.flatnonzero(np.diff(hit, prepend=-1) == 0)
    cell_channel = channel[hit]
    axis = random.integers(2, size=len(second))
    step = np.where(cell_channel[second, axis] > 0, -1, 1)
    cell_channel[second, axis] += step
    picked = cells_before[hit] + random.integers(cells_of_like[hit])
    value = readout.value[picked]

    local = np.empty((extra, 2))
    centres = surfaces.at_channels(surface[hit], cell_channel)
    signal = np.bincount(hit, weights=value)
    for axis_number in range(2):
        weighted = np.bincount(hit, weights=value * centres[:, axis_number])
        local[:, axis_number] = weighted / signal
    return Readout(
        surface=np.concatenate([readout.surface, surface]),
        local=np.concatenate([readout.local, local]),
        crossing=np.concatenate([readout.crossing, np.full(extra, _NO_CROSSING)]),
        cell_hit=np.concatenate([readout.cell_hit, len(readout) + hit]),
        channel=np.concatenate([readout.channel, cell_channel.astype(np.int32)]),
        value=np.concatenate([readout.value, value]),
    )


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


def assemble(
    event_id: int,
    readout: Readout,
    surfaces: Surfaces,
    generated: Generated,
    transported: Transported,
) -> SimulatedEvent:
    """Make the event: hits numbered from 1 by module, in no order within one, and their truth."""
    scrambled = np.random.default_rng(event_id).permutation(len(readout))
    order = scrambled[np.argsort(readout.surface[scrambled], kind="stable")]
    surface, crossing = readout.surface[order], readout.crossing[order]
    hit_id = np.arange(1, len(order) + 1, dtype=np.int64)
    number = np.empty_like(hit_id)
    number[order] = hit_id
    by_hit = np.argsort(number[readout.cell_hit], kind="stable")
    cells = Cells(
        hit_id=number[readout.cell_hit][by_hit],
        ch0=readout.channel[by_hit, 0],
        ch1=readout.channel[by_hit, 1],
        value=readout.value[by_hit],
    )
    position = surfaces.to_global(surface, readout.local[order])
    x, y, z = np.ascontiguousarray(position.T, dtype=np.float32)
    real = crossing != _NO_CROSSING
    crossings = transported.crossings
    particle_id = np.where(real, crossings.particle_id[crossing], NOISE)
    true_position = np.where(real[:, None], crossings.position[crossing], position)
    true_momentum = np.where(real[:, None], crossings.momentum[crossing], 0.0)
    particles, particle_type = _particles(generated, transported.secondaries, particle_id)
    return SimulatedEvent(
        event=Event(
            event_id=event_id,
            hits=Hits(
                hit_id=hit_id,
                x=x,
                y=y,
                z=z,
                modules=Modules(
                    surfaces.volume_id[surface],
                    surfaces.layer_id[surface],
                    surfaces.module_id[surface],
                ),
                clusters=cluster_shapes(cells, hit_id),
            ),
            truth=Truth(
                particle_id=particle_id,
                weight=hit_weights(particle_id, true_position[:, 2], particles),
                particles=particles,
            ),
        ),
        cells=cells,
        true_position=true_position.astype(np.float32),
        true_momentum=true_momentum.astype(np.float32),
        particle_type=particle_type,
    )


def _particles(
    generated: Generated, secondaries: Generated, particle_id: Int64
) -> tuple[Particles, Int32]:
    """Return the generated charged particles, and of those born in the detector what left a hit."""
    charged = np.flatnonzero(generated.charge != 0)
    seen = np.flatnonzero(np.isin(secondaries.particle_id, particle_id))

    def both(name: str) -> Float64:
        values: Float64 = np.concatenate(
            [getattr(generated, name)[charged], getattr(secondaries, name)[seen]]
        )
        return values

    identity = np.concatenate([generated.particle_id[charged], secondaries.particle_id[seen]])
    vertex, momentum = both("vertex"), both("momentum")
    particles = Particles(
        particle_id=identity,
        vx=vertex[:, 0].copy(),
        vy=vertex[:, 1].copy(),
        vz=vertex[:, 2].copy(),
        px=momentum[:, 0].copy(),
        py=momentum[:, 1].copy(),
        pz=momentum[:, 2].copy(),
        q=both("charge"),
        primary=is_primary(identity),
    )
    particle_type = np.concatenate(
        [generated.particle_type[charged], secondaries.particle_type[seen]]
    )
    return particles, particle_type
