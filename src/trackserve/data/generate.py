"""Proton collisions from Pythia 8: one hard ttbar event and a Poisson number of inelastic ones.

Symbols: G generated particles. Lengths and times in mm, momenta in GeV.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pythia8mc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.data.conditions import Conditions
    from trackserve.event import Bool, Float64, Int32, Int64

ATTEMPTS = 100
"""How often in a row Pythia may fail to make a collision before that is an error."""
_PHOTON = 22
_LONG_LIVED = frozenset({310, 3122, 3112, 3222, 3312, 3322, 3334})
"""K0S, Lambda, Sigma-, Sigma+, Xi-, Xi0, Omega-: what they decay to is not primary."""
_OUTSIDE = (1000.0, 2900.0)
"""Radius and |z| beyond which nothing is left to cross."""
_DISPLACED = 1e-3
_DECAY_PRODUCT = 91
"""Pythia's status codes from here on are products of decays."""
_MULTIPARTON_SETTINGS = "multiparton_interactions_14TeV.txt"


@dataclass(frozen=True, eq=False)
class Generated:
    """Stable charged particles and photons of one event, one row each ``[G]``.

    ``particle_id`` is the packed barcode (see ``pack_barcode``).
    """

    particle_id: Int64
    particle_type: Int32
    charge: Float64
    mass: Float64
    vertex: Float64
    time: Float64
    momentum: Float64

    def __len__(self) -> int:
        return len(self.particle_id)

    @property
    def pt(self) -> Float64:
        """Transverse momentum, GeV."""
        pt: Float64 = np.hypot(self.momentum[:, 0], self.momentum[:, 1])
        return pt

    def take(self, rows: Int64 | Bool) -> Generated:
        """Return these rows alone."""
        return Generated(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __add__(self, other: Generated) -> Generated:
        columns = (
            np.concatenate([getattr(each, field.name) for each in (self, other)])
            for field in fields(self)
        )
        return Generated(*columns)


def pack_barcode(
    primary_vertex: Any, secondary_vertex: Any, particle: Any, generation: Any, sub_particle: Any
) -> Int64:
    """Pack ACTS' five-part particle id into one int64, as TrackML does: 12, 12, 16, 8, 16 bits."""
    packed: Int64 = (
        (np.asarray(primary_vertex, dtype=np.int64) << 52)
        | (np.asarray(secondary_vertex, dtype=np.int64) << 40)
        | (np.asarray(particle, dtype=np.int64) << 24)
        | (np.asarray(generation, dtype=np.int64) << 16)
        | np.asarray(sub_particle, dtype=np.int64)
    )
    return packed


def unpack_barcode(particle_id: Int64) -> tuple[Int64, Int64, Int64, Int64, Int64]:
    """Take a packed particle id apart again."""
    return (
        particle_id >> 52,
        (particle_id >> 40) & 0xFFF,
        (particle_id >> 24) & 0xFFFF,
        (particle_id >> 16) & 0xFF,
        particle_id & 0xFFFF,
    )


class Collisions:
    """Pythia 8 set up for proton collisions at 14 TeV; ``pileup`` is the mean number of soft ones."""

    def __init__(
        self,
        conditions: Conditions,
        pileup: float,
        beam_spot_offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self._conditions = conditions
        self._pileup = pileup
        self._offset = np.array(beam_spot_offset)
        self._hard = _pythia("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")
        data = resources.files("trackserve.data") / _MULTIPARTON_SETTINGS
        with resources.as_file(data) as path:
            # Pythia's own set-up of multiparton interactions, written once: saves 6 s each start.
            self._soft = _pythia(
                "SoftQCD:inelastic = on",
                "MultipartonInteractions:reuseInit = 2",
                f"MultipartonInteractions:initFile = {path}",
            )

    def generate(self, random: np.random.Generator) -> Generated:
        """Generate one event: the hard collision first, then the pileup."""
        for engine in (self._hard, self._soft):
            engine.rndm.init(int(random.integers(1, 900_000_000)))
        rows: list[tuple[Any, ...]] = []
        for number in range(1, 2 + int(random.poisson(self._pileup))):
            vertex = self._offset + random.normal(scale=self._conditions.beam_spot)
            engine = self._hard if number == 1 else self._soft
            if not any(engine.next() for _ in range(ATTEMPTS)):
                message = f"Pythia failed to make a collision in {ATTEMPTS} attempts"
                raise RuntimeError(message)
            rows.extend(_stable(engine.event, number, vertex, self._conditions))
        table = np.array(rows, dtype=np.float64).reshape(-1, 13)
        return Generated(
            particle_id=pack_barcode(table[:, 0], table[:, 1], table[:, 2], 0, 0),
            particle_type=table[:, 3].astype(np.int32),
            charge=table[:, 4],
            mass=table[:, 5],
            vertex=table[:, 6:9],
            time=table[:, 9],
            momentum=table[:, 10:13],
        )


def _pythia(*settings: str) -> Any:
    engine = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet = on", "Beams:eCM = 14000.", "Random:setSeed = on", *settings):
        engine.readString(setting)
    assert engine.init(), f"Pythia refuses {settings}"
    return engine


def _stable(
    event: Any, number: int, vertex: Float64, conditions: Conditions
) -> Iterator[tuple[Any, ...]]:
    """Yield id, type, charge, mass, vertex, time and momentum of what the detector may see."""
    x, y, z = vertex.tolist()
    decays: dict[int, int] = {}
    particle_number = 0
    for particle in event:
        if not particle.isFinal() or particle.pT() < conditions.listed_pt:
            continue
        charge, identity = particle.charge(), particle.id()
        if (charge == 0 and identity != _PHOTON) or abs(particle.eta()) > conditions.listed_eta:
            continue
        dx, dy, dz = particle.xProd(), particle.yProd(), particle.zProd()
        if np.hypot(x + dx, y + dy) > _OUTSIDE[0] or abs(z + dz) > _OUTSIDE[1]:
            continue
        particle_number += 1
        decay = _long_lived_mother(event, particle) if abs(dx) + abs(dy) > _DISPLACED else 0
        yield (
            number,
            decays.setdefault(decay, len(decays) + 1) if decay else 0,
            particle_number,
            identity,
            charge,
            particle.m(),
            x + dx,
            y + dy,
            z + dz,
            particle.tProd(),
            particle.px(),
            particle.py(),
            particle.pz(),
        )


def _long_lived_mother(event: Any, particle: Any) -> int:
    """Return the row of the nearest long-lived particle that this one came from; 0 if none."""
    while particle.statusAbs() >= _DECAY_PRODUCT:
        mother: int = particle.mother1()
        particle = event[mother]
        if particle.idAbs() in _LONG_LIVED:
            return mother
    return 0
