"""Events in the CSV files of the ACTS examples framework: measurements and how they came about.

The columns are those of ``Examples/Io/Csv/src/CsvOutputData.hpp`` in https://github.com/acts-project/acts,
with particle ids in five columns, as ACTS writes them today, or in one, as it did before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.sources import EventSource, find_sources, one_source
from trackserve.data.tables import check_unique, read_table, rows_of
from trackserve.data.trackml import Cells, cluster_shapes, is_primary
from trackserve.data.weights import hit_weights
from trackserve.errors import InputError
from trackserve.event import NOISE, Clusters, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.data.sources import File
    from trackserve.data.tables import Columns
    from trackserve.event import Int64

BARCODE_BITS = {
    "particle_id_pv": 12,
    "particle_id_sv": 12,
    "particle_id_part": 16,
    "particle_id_gen": 8,
    "particle_id_subpart": 16,
}
"""The five parts of a particle id, and their width where they are packed into 64 bits."""

_POSITION = ("x", "y", "z")
_KINEMATICS = dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz", "q"), np.float64)


@dataclass(frozen=True)
class ActsEvent(EventSource):
    """An event in ACTS CSV files that has not been read yet."""

    marks = frozenset({"measurements", "spacepoint"})

    def read(self, *, truth: bool = True, cells: bool = False) -> Event:
        """Read the event: each measurement is a hit, whose id is the number of the measurement.

        Positions are the global ones of the measurements; from an ACTS that did not write these,
        those of the space points, and then a measurement without a space point is no hit. Truth
        needs the tables measurement-simhit-map, hits (the simulated ones) and particles_simulated,
        particles_initial or particles; a hit that several particles made belongs to the first of
        them. The weights are those of TrackML. Raises InputError with file, row and column.
        """
        hits = self._read_hits()
        if cells:
            clusters = self._read_clusters(hits.hit_id)
            hits = Hits(hits.hit_id, hits.x, hits.y, hits.z, hits.modules, clusters)
        return Event(self.event_id, hits, self._read_truth(hits) if truth else None)

    def _read_hits(self) -> Hits:
        glob = {name: f"global_{name}" for name in _POSITION}
        if "measurements" in self.tables:
            file = self.file("measurements")
            columns = {"measurement_id": np.int64, "geometry_id": np.uint64}
            table = read_table(file, columns, dict.fromkeys(glob.values(), np.float32))
            if all(column in table for column in glob.values()):
                return _hits(file, table, "measurement_id", "geometry_id", glob)
        if "spacepoint" not in self.tables:
            message = (
                f"{self.file('measurements')} has no columns {', '.join(glob.values())} and the event no "
                "spacepoint file; write one of them (CsvMeasurementWriter of a newer ACTS, or "
                "CsvSpacePointWriter)"
            )
            raise InputError(message)
        return self._read_space_points(self.file("spacepoint"))

    def _read_space_points(self, file: File) -> Hits:
        ids = ("measurement_id", "measurement_id_1")
        geometry = ("geometry_id", "geometry_id_1", "geometry_id_2")
        table = read_table(
            file,
            dict.fromkeys(_POSITION, np.float32),
            {**dict.fromkeys(ids, np.int64), **dict.fromkeys(geometry, np.uint64)},
        )
        pairs = np.flatnonzero(table.get("geometry_id_2", np.zeros(0)))
        if len(pairs):
            message = (
                f"{file} row {pairs[0] + 1} is made of two measurements; expected one each: for strip "
                "detectors write measurements with global positions (a newer ACTS does)"
            )
            raise InputError(message)
        names = dict(zip(_POSITION, _POSITION, strict=True))
        return _hits(
            file, table, _present(file, table, ids), _present(file, table, geometry), names
        )

    def _read_clusters(self, measurement_id: Int64) -> Clusters:
        file = self.file("cells")
        ids = dict.fromkeys(("measurement_id", "hit_id"), np.int64)
        columns = {"channel0": np.int32, "channel1": np.int32, "value": np.float32}
        table = read_table(file, columns, ids)
        owner = table[_present(file, table, tuple(ids))]
        kept = np.isin(owner, measurement_id)
        once = _merged(Cells(owner[kept], *(table[column][kept] for column in columns)))
        return cluster_shapes(once, measurement_id, owner=file)

    def _read_truth(self, hits: Hits) -> Truth:
        file = self.file("particles_simulated", "particles_initial", "particles")
        table, particle_id = _read_with_particle_id(file, _KINEMATICS)
        check_unique(particle_id, owner=file, name="particle id")
        particles = Particles(particle_id, **table, primary=is_primary(particle_id))

        file = self.file("hits")
        _, simulated = _read_with_particle_id(file, {})
        known = np.append(particle_id, NOISE)
        rows_of(simulated, known, owner=file, name="particle id", among="the particles")

        file = self.file("measurement-simhit-map")
        link = read_table(file, {"measurement_id": np.int64, "hit_id": np.int64})
        hit_rows = np.arange(len(simulated))
        made_by = simulated[
            rows_of(link["hit_id"], hit_rows, owner=file, name="hit_id", among="the rows of hits")
        ]
        linked, first = np.unique(link["measurement_id"], return_index=True)
        has_link = np.isin(hits.hit_id, linked)
        truth = np.full(len(hits), NOISE, dtype=np.int64)
        truth[has_link] = made_by[first[np.searchsorted(linked, hits.hit_id[has_link])]]
        weight = hit_weights(truth, hits.z.astype(np.float64), particles)
        return Truth(truth, weight, particles)


def find_events(path: Path) -> list[ActsEvent]:
    """Find the events in a folder or a .zip, or the one at a prefix or file; sorted by number."""
    return find_sources(path, [ActsEvent])


def read_event(path: Path, *, truth: bool = True, cells: bool = False) -> Event:
    """Read the event with this prefix (``.../event000001000``) or to which this file belongs."""
    return one_source(path, [ActsEvent]).read(truth=truth, cells=cells)


def pack_barcode(parts: Mapping[str, NDArray[np.uint64]], *, owner: object) -> Int64:
    """Pack the five parts of each particle id ``[P]`` into the 64-bit barcode of earlier ACTS.

    Raises InputError, naming ``owner``, where a part is too large for its bits.
    """
    barcode = np.zeros(len(parts["particle_id_pv"]), dtype=np.uint64)
    for name, bits in BARCODE_BITS.items():
        large = np.flatnonzero(parts[name] >= 1 << bits)
        if len(large):
            value = parts[name][large[0]]
            message = (
                f"{owner} row {large[0] + 1}: {name} is {value}; expected less than {1 << bits}"
            )
            raise InputError(message)
        barcode = barcode << np.uint64(bits) | parts[name]
    return barcode.view(np.int64)


def modules_of(geometry_id: NDArray[np.uint64]) -> Modules:
    """Decode ACTS' geometry ids ``[N]``.

    From the highest bit on: volume (8 bits), boundary (8), layer (12), approach surface (8),
    sensitive surface (20), which TrackML calls module, and extra (8).
    """

    def field(shift: int, bits: int) -> NDArray[np.int32]:
        value = geometry_id >> np.uint64(shift) & np.uint64((1 << bits) - 1)
        return value.astype(np.int32)

    return Modules(volume_id=field(56, 8), layer_id=field(36, 12), module_id=field(8, 20))


def _hits(
    file: File, table: Columns, identity: str, geometry: str, position: Mapping[str, str]
) -> Hits:
    check_unique(table[identity], owner=file, name=identity)
    x, y, z = (table[position[axis]] for axis in _POSITION)
    return Hits(table[identity], x, y, z, modules=modules_of(table[geometry]))


def _merged(cells: Cells) -> Cells:
    """Return each cell of a measurement once, with the sum of its values: simulations write some again."""
    where = np.stack([cells.hit_id, cells.ch0, cells.ch1], axis=1)
    unique, row = np.unique(where, axis=0, return_inverse=True)
    if len(unique) == len(where):
        return cells
    hit_id, ch0, ch1 = unique.T
    value = np.bincount(row.ravel(), weights=cells.value, minlength=len(unique))
    return Cells(hit_id, ch0.astype(np.int32), ch1.astype(np.int32), value.astype(np.float32))


def _present(file: File, table: Columns, names: tuple[str, ...]) -> str:
    """Return the first of these columns that the table has."""
    for name in names:
        if name in table:
            return name
    message = f"{file} has no column {' or '.join(names)}"
    raise InputError(message)


def _read_with_particle_id(file: File, columns: Mapping[str, type]) -> tuple[Columns, Int64]:
    """Read these columns and the particle id, of five columns or one."""
    identity = dict.fromkeys(("particle_id", *BARCODE_BITS), np.uint64)
    table = read_table(file, columns, identity)
    parts = {name: table.pop(name) for name in identity if name in table}
    if "particle_id" in parts:
        return table, parts["particle_id"].view(np.int64)
    absent = [name for name in BARCODE_BITS if name not in parts]
    if absent:
        message = (
            f"{file} has neither a column particle_id nor all five parts: {absent[0]} is missing"
        )
        raise InputError(message)
    return table, pack_barcode(parts, owner=file)
