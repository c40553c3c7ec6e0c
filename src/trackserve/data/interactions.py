"""Nuclear interactions in the detector's material, which Fatras in pyacts does not simulate.

A hadron that interacts leaves no hit beyond that point. What comes out of the nucleus starts there
and is transported like every other particle. Material is in the layers with modules, the beam pipe
and a few passive shells and discs; TrackML's own events show where: their displaced vertices pile
up there.

Symbols: H crossings, P points of a particle's path where it passes material. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.conditions import of_volume
from trackserve.data.generate import Generated, pack_barcode, unpack_barcode

if TYPE_CHECKING:
    from trackserve.data.conditions import Conditions
    from trackserve.data.detector import Surfaces
    from trackserve.data.transport import Crossings
    from trackserve.event import Bool, Float64, Int64

_SHELLS = ((19.0, 0.0025), (200.0, 0.006))
"""Radius of the beam pipe and of a support, and their thickness in interaction lengths."""
_DISCS = ((570.5, (33, 60), 0.020), (570.5, (60, 175), 0.010), (1182.5, (240, 1000), 0.008))
"""|z|, radii and thickness of what closes the pixel barrel (services, thicker near the beam) and
the short-strip barrel. Displaced vertices of real events lie there."""
_STEEPEST = 0.1
"""Least cosine between a path and the normal to the material: layers are not endless."""
_PIXEL_BARREL = 8
_LEPTONS_AND_PHOTON = (11, 13, 15, 22)
_PROTON, _PION = (2212, 0.938272), (211, 0.139570)
"""PDG number and mass, GeV."""
_QUIET, _SLOW, _SEEN, _FAST = 0.2, 4, 0.46, 0.28
"""This share of interactions has no charged products; the others have at most this many slow ones,
each with this probability, and this often a fast one."""
_PROTONS = 0.57
"""Share of protons among the slow."""
_SLOW_MOMENTUM, _SLOW_WIDTH = 0.24, 0.45
"""Median and relative spread of the momentum of the slow, GeV."""
_NEAR = 15.0
"""A particle that is too soft to go on leaves hits as far as this from where it was born."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Where hadrons interacted, one row each: particle, place (mm) and momentum (GeV)."""

    particle_id: Int64
    position: Float64
    momentum: Float64

    def __len__(self) -> int:
        return len(self.particle_id)


def interact(
    crossings: Crossings,
    particles: Generated,
    surfaces: Surfaces,
    conditions: Conditions,
    random: np.random.Generator,
) -> tuple[Bool, Interactions]:
    """Let hadrons interact where they pass material.

    Returns which crossings ``[H]`` happen, those up to the interaction, and the interactions. A
    particle without crossings is left alone.
    """
    by_id = np.argsort(particles.particle_id)
    row = by_id[np.searchsorted(particles.particle_id, crossings.particle_id, sorter=by_id)]
    along = np.lexsort((crossings.order, row))
    row = row[along]
    position, momentum = crossings.position[along], crossings.momentum[along]
    surface = crossings.surface[along]
    first = np.diff(row, prepend=-1) != 0
    start = np.where(first[:, None], particles.vertex[row], np.roll(position, 1, axis=0))

    cosine = np.abs(np.einsum("hi,hi->h", surfaces.rotation[surface, :, 2], momentum))
    cosine /= np.sqrt((momentum**2).sum(axis=1))
    depth = _thickness(surfaces, conditions)[surface]
    # Material between two crossings first, then the module itself behind its sensitive layer.
    steps = [*_passive(start, position), (np.ones(len(row)), depth / np.maximum(cosine, _STEEPEST))]
    share = np.stack([step[0] for step in steps], axis=1)
    passed = np.stack([step[1] for step in steps], axis=1)
    order = np.argsort(share, axis=1, kind="stable")
    share, passed = (np.take_along_axis(each, order, axis=1) for each in (share, passed))

    hadron = ~np.isin(np.abs(particles.particle_type), _LEPTONS_AND_PHOTON)
    total = np.cumsum(passed.ravel())
    before = np.where(first, total.reshape(passed.shape)[:, 0] - passed[:, 0], 0)
    before = np.maximum.accumulate(before)
    length = np.where(hadron, random.exponential(size=len(particles)), np.inf)
    done = total.reshape(passed.shape) - before[:, None] >= length[row][:, None]
    rows, counts = np.flatnonzero(done.any(axis=1)), np.argmax(done, axis=1)
    _, earliest = np.unique(row[rows], return_index=True)
    rows = rows[earliest]
    at = share[rows, counts[rows]]
    own_hit = at >= 1
    last = np.full(len(particles), np.iinfo(np.int64).max)
    last[row[rows]] = np.where(own_hit, rows, rows - 1)

    happens = np.empty(len(row), dtype=bool)
    happens[along] = (np.arange(len(row)) <= last[row]) & _fast_enough(
        row, position, momentum, particles, conditions
    )
    place = start[rows] + at[:, None] * (position[rows] - start[rows])
    return happens, Interactions(particles.particle_id[row[rows]], place, momentum[rows])


def _fast_enough(
    row: Int64, position: Float64, momentum: Float64, particles: Generated, conditions: Conditions
) -> Bool:
    """Whether each crossing comes before its particle has become too soft to be followed.

    ``row`` is the particle of each crossing, sorted, and in the order of its path.
    """
    soft = np.hypot(momentum[:, 0], momentum[:, 1]) < conditions.transported_pt
    before = np.cumsum(soft)
    first = np.searchsorted(row, row)
    gone: Bool = before - before[first] + soft[first] > 0
    near: Bool = ((position - particles.vertex[row]) ** 2).sum(axis=1) < _NEAR**2
    return ~gone | near


def _thickness(surfaces: Surfaces, conditions: Conditions) -> Float64:
    """Return the thickness of each module's layer ``[S]`` in interaction lengths."""
    thickness = of_volume(conditions.interaction, surfaces.volume_id)
    pixel = surfaces.volume_id == _PIXEL_BARREL
    layer = surfaces.layer_id[pixel] // 2 - 1  # layers are numbered 2, 4, 6, 8
    thickness[pixel] = np.array(conditions.pixel_barrel)[layer]
    return thickness


def _passive(start: Float64, end: Float64) -> list[tuple[Float64, Float64]]:
    """Return for each passive surface where steps meet it (share of the step) and what they pass.

    A step that does not meet it has the share 0 and passes nothing.
    """
    step = end - start
    length = np.sqrt((step**2).sum(axis=1))
    radius = np.hypot(start[:, 0], start[:, 1]), np.hypot(end[:, 0], end[:, 1])
    height = np.abs(start[:, 2]), np.abs(end[:, 2])
    met = []
    surfaces = [(radius, place, (0.0, np.inf), depth) for place, depth in _SHELLS]
    surfaces += [(height, place, radii, depth) for place, radii, depth in _DISCS]
    for (low, high), place, (inner, outer), depth in surfaces:
        meets = (low < place) != (high < place)
        share = np.where(meets, (place - low) / np.where(meets, high - low, 1), 0)
        at = start[:, :2] + share[:, None] * step[:, :2]
        if np.isfinite(outer):
            distance = np.hypot(at[:, 0], at[:, 1])
            meets &= (inner <= distance) & (distance < outer)
        slope = length / np.maximum(np.abs(high - low), _STEEPEST * np.maximum(length, 1e-9))
        met.append((np.where(meets, share, 0), np.where(meets, depth * slope, 0)))
    return met


def products(interactions: Interactions, random: np.random.Generator) -> Generated:
    """Make the charged particles that come out of these interactions.

    In TrackML's events they are slow, in all directions, and mostly positive: protons knocked out
    of the nucleus, and a few pions; and sometimes a faster pion along the hadron.
    """
    loud = random.random(len(interactions)) >= _QUIET
    slow = random.binomial(_SLOW, _SEEN, len(interactions)) * loud
    fast = ((random.random(len(interactions)) < _FAST) & loud).astype(np.int64)
    of = np.repeat(np.arange(len(interactions)), slow + fast)
    is_fast = np.repeat(
        np.tile([False, True], len(interactions)), np.column_stack([slow, fast]).ravel()
    )
    proton = ~is_fast & (random.random(len(of)) < _PROTONS)
    size = np.exp(random.normal(np.log(_SLOW_MOMENTUM), _SLOW_WIDTH, len(of)))
    cos_theta, phi = random.uniform(-1, 1, len(of)), random.uniform(-np.pi, np.pi, len(of))
    sin_theta = np.sqrt(1 - cos_theta**2)
    direction = np.column_stack([sin_theta * np.cos(phi), sin_theta * np.sin(phi), cos_theta])
    along = interactions.momentum[of] * random.beta(1, 2, len(of))[:, None]
    kick = direction * random.normal(0, 0.3, len(of))[:, None]
    momentum = np.where(is_fast[:, None], along + kick, direction * size[:, None])
    negative = ~proton & (random.random(len(of)) < 0.5)
    primary, secondary, number, generation, _ = (
        part[of] for part in unpack_barcode(interactions.particle_id)
    )
    charge = np.where(negative, -1.0, 1.0)
    return Generated(
        particle_id=pack_barcode(
            primary, secondary, number, generation + 1, np.arange(1, len(of) + 1)
        ),
        particle_type=np.where(proton, _PROTON[0], charge * _PION[0]).astype(np.int32),
        charge=charge,
        mass=np.where(proton, _PROTON[1], _PION[1]),
        vertex=interactions.position[of],
        time=np.sqrt((interactions.position[of] ** 2).sum(axis=1)),
        momentum=momentum,
    )
