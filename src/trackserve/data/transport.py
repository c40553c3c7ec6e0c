"""Particles through the detector: ACTS' fast simulation (Fatras), which makes crossings of modules.

Fatras scatters particles, takes their energy away, and converts photons. What nuclear interactions
do is added by ``trackserve.data.interactions``.

Symbols: H crossings of a module by a particle; G particles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import acts
import acts.examples
import numpy as np
from pyarrow import csv

from trackserve.data.detector import QUIET, build_field, read_surfaces
from trackserve.data.generate import Generated, pack_barcode, unpack_barcode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.data.detector import Field
    from trackserve.event import Bool, Float64, Int64

_SLOWEST = 0.05
"""Fatras drops particles of less momentum, GeV."""
_BARCODE = [f"particle_id_{part}" for part in ("pv", "part", "gen", "subpart")]
_NUMBERS = 2**15
"""Particles are numbered in groups of this size: a number has 16 bits in ACTS."""
_FATRAS, _FILES = 1, 2
"""Numbers of the algorithms: each has random numbers of its own."""


@dataclass(frozen=True, eq=False)
class Crossings:
    """Where particles crossed modules, one row each ``[H]``: mm and GeV.

    ``surface`` is the row of the module in ``Surfaces``, ``order`` counts the crossings of a
    particle along its path.
    """

    particle_id: Int64
    surface: Int64
    order: Int64
    position: Float64
    momentum: Float64

    def __len__(self) -> int:
        return len(self.particle_id)

    def take(self, rows: Int64 | Bool) -> Crossings:
        """Return these rows alone."""
        return Crossings(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __add__(self, other: Crossings) -> Crossings:
        columns = (
            np.concatenate([getattr(each, field.name) for each in (self, other)])
            for field in fields(self)
        )
        return Crossings(*columns)


class Transport:
    """Fatras on the Generic detector, set up once for many events.

    ``scratch`` is an existing folder for the tables of one event at a time.
    """

    def __init__(self, detector: Any, field: Field, field_scale: float, scratch: Path) -> None:
        self._detector = detector  # the geometry only borrows its modules
        self.surfaces = read_surfaces(detector)
        self._scratch = scratch
        random = acts.examples.RandomNumbers(acts.examples.RandomNumbers.Config(seed=0))
        self._source = _ParticleSource()
        self._fatras = acts.examples.FatrasSimulation(
            acts.examples.FatrasSimulation.Config(
                inputParticles="generated",
                outputParticles="simulated",
                outputSimHits="crossings",
                randomNumbers=random,
                trackingGeometry=detector.trackingGeometry(),
                magneticField=build_field(field, field_scale),
                generateHitsOnSensitive=True,
                emScattering=True,
                emEnergyLossIonisation=True,
                emEnergyLossRadiation=True,
                emPhotonConversion=True,
                pMin=_SLOWEST * acts.UnitConstants.GeV,
            ),
            QUIET,
        )
        self._writers = _writers(scratch)

    def run(self, generated: Generated, seed: int) -> tuple[Crossings, Generated]:
        """Carry particles through the detector; ``seed`` is below 2**31.

        Returns their crossings, and the charged particles born in the detector.
        """
        store = acts.examples.WhiteBoard(QUIET)
        self._source.put(generated, acts.examples.AlgorithmContext(0, seed, store, 0))
        done = self._fatras.internalExecute(acts.examples.AlgorithmContext(_FATRAS, seed, store, 0))
        assert done == acts.examples.ProcessCode.SUCCESS, f"{self._fatras.name()} failed"
        for writer in self._writers:
            writer.write(acts.examples.AlgorithmContext(_FILES, 0, store, 0))
        return self._read_crossings(generated), self._read_born(generated)

    def _read(self, name: str, columns: list[str]) -> dict[str, NDArray[Any]]:
        table = csv.read_csv(
            self._scratch / f"event000000000-{name}.csv",
            convert_options=csv.ConvertOptions(include_columns=columns),
        )
        return {column: table[column].to_numpy() for column in columns}

    def _read_crossings(self, generated: Generated) -> Crossings:
        place = ["geometry_id", "index", "tx", "ty", "tz", "tpx", "tpy", "tpz"]
        table = self._read("crossings", [*_BARCODE, *place])
        return Crossings(
            particle_id=_particle_id(table, generated),
            surface=self.surfaces.rows(table["geometry_id"]),
            order=table["index"].astype(np.int64),
            position=_columns(table, ("tx", "ty", "tz")),
            momentum=_columns(table, ("tpx", "tpy", "tpz")),
        )

    def _read_born(self, generated: Generated) -> Generated:
        columns = ["particle_type", "q", "m", "vx", "vy", "vz", "vt", "px", "py", "pz"]
        table = self._read("simulated", [*_BARCODE, *columns])
        particle_id = _particle_id(table, generated)
        born_here = (table["q"] != 0) & (table["particle_id_gen"] > 0)
        table = {name: column[born_here] for name, column in table.items()}
        return Generated(
            particle_id=particle_id[born_here],
            particle_type=table["particle_type"].astype(np.int32),
            charge=table["q"].astype(np.float64),
            mass=table["m"].astype(np.float64),
            vertex=_columns(table, ("vx", "vy", "vz")),
            time=table["vt"].astype(np.float64),
            momentum=_columns(table, ("px", "py", "pz")),
        )


class _ParticleSource(acts.examples.IAlgorithm):  # type: ignore[misc]  # acts has no types
    """Puts generated particles into ACTS' event store."""

    def __init__(self) -> None:
        super().__init__("particles", QUIET)
        container = acts.examples.SimParticleContainer
        self._handle = acts.examples.WriteDataHandle(self, container, "particles")
        self._handle.initialize("generated")

    def put(self, generated: Generated, context: Any) -> None:
        particles = acts.examples.SimParticleContainer()
        for particle in acts_particles(generated):
            particles.insert(particle)
        self._handle(context, particles)


def acts_particles(generated: Generated) -> Iterable[Any]:
    """Yield generated particles as ACTS' ``SimParticle``, numbered in groups."""
    momentum = np.sqrt((generated.momentum**2).sum(axis=1))
    columns = (
        (np.arange(len(generated)) // _NUMBERS + 1).tolist(),
        (np.arange(len(generated)) % _NUMBERS).tolist(),
        generated.particle_type.tolist(),
        generated.charge.tolist(),
        (generated.mass * acts.UnitConstants.GeV).tolist(),
        np.column_stack([generated.vertex, generated.time]).tolist(),
        (generated.momentum / momentum[:, None]).tolist(),
        (momentum * acts.UnitConstants.GeV).tolist(),
    )
    for group, number, identity, charge, mass, place, direction, size in zip(*columns, strict=True):
        barcode = acts.examples.SimBarcode()
        barcode.vertexPrimary = group
        barcode.particle = number
        particle = acts.examples.SimParticle(barcode, acts.PdgParticle(identity), charge, mass)
        particle.fourPosition = acts.Vector4(*place)
        particle.direction = acts.Vector3(*direction)
        particle.absoluteMomentum = size
        yield particle


def _particle_id(table: dict[str, NDArray[Any]], generated: Generated) -> Int64:
    """Return the ids of particles from the numbers that ``acts_particles`` gave to ACTS.

    Fatras takes particles without generation only, so the ids themselves cannot go in. What is born
    in the detector gets its ancestor's id, with generation and sub-particle as Fatras counts them.
    """
    row = (table["particle_id_pv"] - 1) * _NUMBERS + table["particle_id_part"]
    primary, secondary, number, generation, sub = unpack_barcode(generated.particle_id[row])
    born = table["particle_id_gen"]
    return pack_barcode(
        primary,
        secondary,
        number,
        generation + born,
        np.where(born > 0, table["particle_id_subpart"], sub),
    )


def _writers(scratch: Path) -> list[Any]:
    folder = {"outputDir": str(scratch)}
    crossings = acts.examples.CsvSimHitWriter.Config(
        inputSimHits="crossings", outputStem="crossings", **folder
    )
    particles = acts.examples.CsvParticleWriter.Config(
        inputParticles="simulated", outputStem="simulated", **folder
    )
    return [
        acts.examples.CsvSimHitWriter(crossings, QUIET),
        acts.examples.CsvParticleWriter(particles, QUIET),
    ]


def _columns(table: dict[str, NDArray[Any]], names: tuple[str, ...]) -> Float64:
    return np.column_stack([table[name] for name in names]).astype(np.float64)
