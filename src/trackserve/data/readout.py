"""From clusters of cells to the hits of an event: attribution to particles, truth.

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
    from trackserve.data.digitise import Measurements
    from trackserve.data.generate import Generated
    from trackserve.data.transport import Crossings
    from trackserve.event import Bool, Float32, Float64, Int32, Int64

NO_CROSSING = -1
"""Takes the place of the row of a crossing where there is none."""


@dataclass(frozen=True, eq=False)
class Transported:
    """All that the detector made of one event.

    ``particles`` are the charged particles that the event lists. Crossings by others have the
    particle 0 and end as noise.
    """

    particles: Generated
    crossings: Crossings
    measurements: Measurements


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


def assemble(
    event_id: int,
    readout: Readout,
    surfaces: Surfaces,
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
    real = crossing != NO_CROSSING
    crossings = transported.crossings
    particle_id = np.where(real, crossings.particle_id[crossing], NOISE)
    true_position = np.where(real[:, None], crossings.position[crossing], position)
    true_momentum = np.where((particle_id != NOISE)[:, None], crossings.momentum[crossing], 0.0)
    particles = _particles(transported.particles)
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
        particle_type=transported.particles.particle_type,
    )


def _particles(listed: Generated) -> Particles:
    vertex, momentum = listed.vertex, listed.momentum
    return Particles(
        particle_id=listed.particle_id,
        vx=vertex[:, 0].copy(),
        vy=vertex[:, 1].copy(),
        vz=vertex[:, 2].copy(),
        px=momentum[:, 0].copy(),
        py=momentum[:, 1].copy(),
        pz=momentum[:, 2].copy(),
        q=listed.charge,
        primary=is_primary(listed.particle_id),
    )
