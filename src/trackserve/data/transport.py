"""Particles through the detector: ACTS' fast simulation (Fatras) and geometric digitisation.

ACTS hands clusters of cells over in no other way than as CSV, so its tables go through a
scratch folder.

Symbols: M measurements, one for each cluster; H crossings of a module by a particle; C cells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import acts
import acts.examples
import acts.examples.json
import numpy as np
from pyarrow import csv

from trackserve.data.detector import QUIET, build_field, read_surfaces
from trackserve.data.generate import MINIMUM_PT, Generated, pack_barcode, unpack_barcode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.data.detector import Field, Surfaces
    from trackserve.event import Float32, Float64, Int32, Int64

_CHARGE_SPREAD = 0.01
"""Spread of the signal of a cell, in mm of path: ACTS' own setting for this detector."""
_BARCODE = [f"particle_id_{part}" for part in ("pv", "sv", "part", "gen", "subpart")]
_FATRAS, _DIGITISATION, _FILES = 1, 2, 3
"""Numbers of the algorithms: each has random numbers of its own."""


@dataclass(frozen=True, eq=False)
class Crossings:
    """Where particles crossed modules, one row each ``[H]``: mm and GeV.

    ``surface`` is the row of the module in ``Surfaces``.
    """

    particle_id: Int64
    surface: Int64
    position: Float64
    momentum: Float64


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


@dataclass(frozen=True, eq=False)
class Transported:
    """All that the detector made of one event; ``secondaries`` are the particles born in it."""

    secondaries: Generated
    crossings: Crossings
    measurements: Measurements


class Transport:
    """Fatras and digitisation on the Generic detector, set up once for many events.

    ``scratch`` is an existing folder for the tables of one event at a time.
    """

    def __init__(self, detector: Any, field: Field, field_scale: float, scratch: Path) -> None:
        self._detector = detector  # the geometry only borrows its modules
        self.surfaces = read_surfaces(detector)
        self._scratch = scratch
        geometry = detector.trackingGeometry()
        random = acts.examples.RandomNumbers(acts.examples.RandomNumbers.Config(seed=0))
        self._source = _ParticleSource()
        self._fatras = acts.examples.FatrasSimulation(
            acts.examples.FatrasSimulation.Config(
                inputParticles="generated",
                outputParticles="simulated",
                outputSimHits="crossings",
                randomNumbers=random,
                trackingGeometry=geometry,
                magneticField=build_field(field, field_scale),
                generateHitsOnSensitive=True,
                emScattering=True,
                emEnergyLossIonisation=True,
                emEnergyLossRadiation=True,
                emPhotonConversion=True,
                pMin=MINIMUM_PT * acts.UnitConstants.GeV,
            ),
            QUIET,
        )
        settings = scratch / "digitisation.json"
        settings.write_text(json.dumps(_digitisation(self.surfaces)))
        self._digitisation = acts.examples.DigitizationAlgorithm(
            acts.examples.DigitizationAlgorithm.Config(
                digitizationConfigs=acts.examples.json.readDigiConfigFromJson(str(settings)),
                surfaceByIdentifier=geometry.geoIdSurfaceMap(),
                randomNumbers=random,
                inputSimHits="crossings",
                outputMeasurements="measurements",
                outputClusters="clusters",
                outputMeasurementParticlesMap="measurement-particles",
                outputMeasurementSimHitsMap="measurement-crossings",
                outputParticleMeasurementsMap="particle-measurements",
                outputSimHitMeasurementsMap="crossing-measurements",
                doMerge=True,
            ),
            QUIET,
        )
        self._writers = _writers(scratch)

    def run(self, generated: Generated, seed: int) -> Transported:
        """Carry one event's particles through the detector; ``seed`` is below 2**31."""
        store = acts.examples.WhiteBoard(QUIET)
        self._source.put(generated, acts.examples.AlgorithmContext(0, seed, store, 0))
        for number, algorithm in ((_FATRAS, self._fatras), (_DIGITISATION, self._digitisation)):
            context = acts.examples.AlgorithmContext(number, seed, store, 0)
            done = algorithm.internalExecute(context)
            assert done == acts.examples.ProcessCode.SUCCESS, f"{algorithm.name()} failed"
        for writer in self._writers:
            writer.write(acts.examples.AlgorithmContext(_FILES, 0, store, 0))
        crossings = self._read_crossings()
        return Transported(
            secondaries=self._read_secondaries(),
            crossings=crossings,
            measurements=self._read_measurements(),
        )

    def _read(self, name: str, columns: list[str]) -> dict[str, NDArray[Any]]:
        table = csv.read_csv(
            self._scratch / f"event000000000-{name}.csv",
            convert_options=csv.ConvertOptions(include_columns=columns),
        )
        return {column: table[column].to_numpy() for column in columns}

    def _read_crossings(self) -> Crossings:
        place = ["geometry_id", "tx", "ty", "tz", "tpx", "tpy", "tpz"]
        table = self._read("crossings", [*_BARCODE, *place])
        return Crossings(
            particle_id=pack_barcode(*(table[part] for part in _BARCODE)),
            surface=self.surfaces.rows(table["geometry_id"]),
            position=_columns(table, ("tx", "ty", "tz")),
            momentum=_columns(table, ("tpx", "tpy", "tpz")),
        )

    def _read_secondaries(self) -> Generated:
        columns = ["particle_type", "q", "m", "vx", "vy", "vz", "vt", "px", "py", "pz"]
        table = self._read("simulated", [*_BARCODE, *columns])
        born_here = (table["particle_id_gen"] > 0) & (table["q"] != 0)
        table = {name: column[born_here] for name, column in table.items()}
        return Generated(
            particle_id=pack_barcode(*(table[part] for part in _BARCODE)),
            particle_type=table["particle_type"].astype(np.int32),
            charge=table["q"].astype(np.float64),
            mass=table["m"].astype(np.float64),
            vertex=_columns(table, ("vx", "vy", "vz")),
            time=table["vt"].astype(np.float64),
            momentum=_columns(table, ("px", "py", "pz")),
        )

    def _read_measurements(self) -> Measurements:
        places = self._read("measurements", ["geometry_id", "local0", "local1"])
        links = self._read("measurement-simhit-map", ["measurement_id", "hit_id"])
        cells = self._read("cells", ["measurement_id", "channel0", "channel1", "value"])
        channel = _columns(cells, ("channel0", "channel1")).astype(np.int32)
        measurement, channel, value = _merge_cells(cells["measurement_id"], channel, cells["value"])
        return Measurements(
            surface=self.surfaces.rows(places["geometry_id"]),
            local=_columns(places, ("local0", "local1")),
            measurement=links["measurement_id"],
            crossing=links["hit_id"],
            cell_measurement=measurement,
            channel=channel,
            value=value,
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
        for particle in _acts_particles(generated):
            particles.insert(particle)
        self._handle(context, particles)


def _acts_particles(generated: Generated) -> Iterable[Any]:
    momentum = np.sqrt((generated.momentum**2).sum(axis=1))
    columns = (
        *(part.tolist() for part in unpack_barcode(generated.particle_id)[:3]),
        generated.particle_type.tolist(),
        generated.charge.tolist(),
        (generated.mass * acts.UnitConstants.GeV).tolist(),
        np.column_stack([generated.vertex, generated.time]).tolist(),
        (generated.momentum / momentum[:, None]).tolist(),
        (momentum * acts.UnitConstants.GeV).tolist(),
    )
    for primary, secondary, number, identity, charge, mass, place, direction, size in zip(
        *columns, strict=True
    ):
        barcode = acts.examples.SimBarcode()
        barcode.vertexPrimary = primary
        barcode.vertexSecondary = secondary
        barcode.particle = number
        particle = acts.examples.SimParticle(barcode, acts.PdgParticle(identity), charge, mass)
        particle.fourPosition = acts.Vector4(*place)
        particle.direction = acts.Vector3(*direction)
        particle.absoluteMomentum = size
        yield particle


def _digitisation(surfaces: Surfaces) -> dict[str, Any]:
    """Return ACTS' settings: cells of the detector's pitch on each module's own size."""

    def axis(name: str, bins: int, half: float) -> dict[str, Any]:
        shape = {"type": "equidistant", "option": "open", "value": name}
        return {**shape, "bins": bins, "min": -half, "max": half}

    entries: list[dict[str, Any]] = []
    of_volume: dict[int, dict[str, Any]] = {}
    for row in range(len(surfaces)):
        channels = surfaces.channels[row].tolist()
        halves = (surfaces.half_width[row].max().item(), surfaces.half_length[row].item())
        axes = [axis(*each) for each in zip(("binX", "binY"), channels, halves, strict=True)]
        value = {
            "geometric": {
                "indices": [0, 1],
                "digital": False,
                "segmentation": {"binningdata": axes},
                "thickness": surfaces.thickness[row].item(),
                "threshold": 0.0,
                "charge-smearing": {"type": "Gauss", "mean": 0.0, "stddev": _CHARGE_SPREAD},
            }
        }
        place = {"volume": surfaces.volume_id[row].item()}
        usual = of_volume.setdefault(place["volume"], value)
        if usual is value:
            entries.append({**place, "value": value})
        elif usual != value:
            place["layer"] = surfaces.layer_id[row].item()
            place["sensitive"] = surfaces.module_id[row].item()
            entries.append({**place, "value": value})
    header = {"format-version": 0, "value-identifier": "digitization-configuration"}
    return {"acts-geometry-hierarchy-map": header, "entries": entries}


def _writers(scratch: Path) -> list[Any]:
    folder = {"outputDir": str(scratch)}
    measurements = acts.examples.CsvMeasurementWriter.Config(
        inputMeasurements="measurements",
        inputClusters="clusters",
        inputMeasurementSimHitsMap="measurement-crossings",
        **folder,
    )
    crossings = acts.examples.CsvSimHitWriter.Config(
        inputSimHits="crossings", outputStem="crossings", **folder
    )
    particles = acts.examples.CsvParticleWriter.Config(
        inputParticles="simulated", outputStem="simulated", **folder
    )
    return [
        acts.examples.CsvMeasurementWriter(measurements, QUIET),
        acts.examples.CsvSimHitWriter(crossings, QUIET),
        acts.examples.CsvParticleWriter(particles, QUIET),
    ]


def _columns(table: dict[str, NDArray[Any]], names: tuple[str, ...]) -> Float64:
    return np.column_stack([table[name] for name in names]).astype(np.float64)


def _merge_cells(
    measurement: Int64, channel: Int32, value: Float64
) -> tuple[Int64, Int32, Float32]:
    """Sort cells by measurement and channel, and add up those that two particles crossed."""
    order = np.lexsort((channel[:, 1], channel[:, 0], measurement))
    measurement, channel, value = measurement[order], channel[order], value[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(measurement) != 0) | (np.diff(channel, axis=0) != 0).any(axis=1)
    summed = np.add.reduceat(value, np.flatnonzero(first)) if len(order) else value
    return measurement[first], channel[first], summed.astype(np.float32)
