"""Events in the format of the TrackML challenge: one CSV table each of hits, cells, particles, truth.

The format is described at https://www.kaggle.com/c/trackml-particle-identification/data and in
Amrouche et al., "The Tracking Machine Learning challenge: Accuracy phase", arXiv:1904.06778.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trackserve.data.sources import EventSource, find_sources, one_source
from trackserve.data.tables import check_unique, read_table, rows_of, write_table
from trackserve.errors import InputError
from trackserve.event import NOISE, Clusters, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.event import Bool, Float32, Int32, Int64

Form = Literal["csv", "csv.gz", "parquet"]
"""How the tables of an event are written; Parquet is the smallest, and the fastest to read."""

_POSITION = {"x": np.float32, "y": np.float32, "z": np.float32}
_MODULE = {"volume_id": np.int32, "layer_id": np.int32, "module_id": np.int32}
_CELL = {"hit_id": np.int64, "ch0": np.int32, "ch1": np.int32, "value": np.float32}
_KINEMATICS = dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz", "q"), np.float64)


@dataclass(frozen=True, eq=False)
class Cells:
    """The pixels or strips that fired, one row each ``[C]``: the hit they belong to, channel, value.

    ``ch0`` and ``ch1`` number the channels along the two local axes of the module; ``value`` is the
    signal (in TrackML's own unit, or whatever the digitisation that made the event gives).
    """

    hit_id: Int64
    ch0: Int32
    ch1: Int32
    value: Float32

    def __post_init__(self) -> None:
        lengths = {len(self.hit_id), len(self.ch0), len(self.ch1), len(self.value)}
        if len(lengths) > 1:
            message = f"the columns of Cells have {sorted(lengths)} entries; expected equal lengths"
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.hit_id)


@dataclass(frozen=True, eq=False)
class SimulatedEvent:
    """All that a simulation knows of an event: what ``write_event`` writes.

    ``event`` has truth, and hits with modules. ``true_position`` is where the particle crossed the
    module, ``[N, 3]`` in mm, and ``true_momentum`` its momentum there, ``[N, 3]`` in GeV.
    ``particle_type`` is the PDG number of each particle ``[P]``.
    """

    event: Event
    cells: Cells
    true_position: Float32
    true_momentum: Float32
    particle_type: Int32

    def __post_init__(self) -> None:
        event, truth = self.event, self.event.truth
        if truth is None or event.hits.modules is None:
            message = f"event {event.event_id} lacks truth or modules; a simulated event has both"
            raise InputError(message)
        hits = len(event.hits)
        expected: dict[str, tuple[int, ...]] = {
            "true_position": (hits, 3),
            "true_momentum": (hits, 3),
            "particle_type": (len(truth.particles),),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                found = list(getattr(self, name).shape)
                message = f"SimulatedEvent.{name} has shape {found}; expected {list(shape)}"
                raise InputError(message)


@dataclass(frozen=True)
class TrackMLEvent(EventSource):
    """An event in TrackML files that has not been read yet."""

    marks = frozenset({"hits"})

    def read(self, *, truth: bool = True, cells: bool = False) -> Event:
        """Read the event: its hits, their truth if asked, their clusters of cells if asked.

        Truth needs the tables truth and particles, clusters the table cells. ``modules`` is None
        where the hits have no volume, layer and module. Raises InputError with file, row, column.
        """
        file = self.file("hits")
        table = read_table(file, {"hit_id": np.int64, **_POSITION}, _MODULE)
        hit_id = table["hit_id"]
        check_unique(hit_id, owner=file, name="hit_id")
        has_modules = all(name in table for name in _MODULE)
        hits = Hits(
            hit_id,
            x=table["x"],
            y=table["y"],
            z=table["z"],
            modules=Modules(*(table[name] for name in _MODULE)) if has_modules else None,
            clusters=self._read_clusters(hit_id) if cells else None,
        )
        return Event(self.event_id, hits, self._read_truth(hit_id) if truth else None)

    def _read_clusters(self, hit_id: Int64) -> Clusters:
        file = self.file("cells")
        return cluster_shapes(Cells(**read_table(file, _CELL)), hit_id, owner=file)

    def _read_truth(self, hit_id: Int64) -> Truth:
        file = self.file("particles")
        table = read_table(file, {"particle_id": np.int64, **_KINEMATICS})
        check_unique(table["particle_id"], owner=file, name="particle_id")
        particles = Particles(**table, primary=is_primary(table["particle_id"]))

        file = self.file("truth")
        columns = {"hit_id": np.int64, "particle_id": np.int64, "weight": np.float64}
        table = read_table(file, columns)
        check_unique(table["hit_id"], owner=file, name="hit_id")
        rows_of(table["hit_id"], hit_id, owner=file, name="hit_id", among="the hits")
        known = np.append(particles.particle_id, NOISE)
        rows_of(table["particle_id"], known, owner=file, name="particle_id", among="the particles")
        rows = rows_of(
            hit_id, table["hit_id"], owner=self.file("hits"), name="hit_id", among="the truth"
        )
        return Truth(table["particle_id"][rows], table["weight"][rows], particles)


def find_events(path: Path) -> list[TrackMLEvent]:
    """Find the events in a folder or a .zip, or the one at a prefix or file; sorted by number."""
    return find_sources(path, [TrackMLEvent])


def read_event(path: Path, *, truth: bool = True, cells: bool = False) -> Event:
    """Read the event with this prefix (``.../event000001000``) or to which this file belongs."""
    return one_source(path, [TrackMLEvent]).read(truth=truth, cells=cells)


def is_primary(particle_id: Int64) -> Bool:
    """Whether each particle ``[P]`` came straight from a primary vertex, as far as its id shows.

    An ACTS barcode holds, from its highest bit on, primary vertex (12 bits), secondary vertex (12),
    particle (16), generation (8) and sub-particle (16); a primary has only the first and the third.
    The ids of the TrackML challenge hold vertex (12 bits), particle (16) and below them zeros. Ids
    too small to be either carry no information, and such particles count as primary.
    """
    barcode = particle_id.view(np.uint64)
    below_trackml_particle = barcode & np.uint64((1 << 36) - 1)
    if np.count_nonzero(below_trackml_particle == 0) > len(barcode) / 2:
        descent = below_trackml_particle
    else:
        descent = barcode & np.uint64(0x000F_FF00_00FF_FFFF)
    primary: Bool = (descent == 0) | (barcode < 1 << 48)
    return primary


def cluster_shapes(cells: Cells, hit_id: Int64, *, owner: object = "cells") -> Clusters:
    """Summarise the cells of each hit ``[N]``; a hit without cells has zeros throughout.

    Raises InputError, naming ``owner``, for a cell of an unknown hit.
    """
    hits = len(hit_id)
    row = rows_of(cells.hit_id, hit_id, owner=owner, name="hit_id", among="the hits")
    count = np.bincount(row, minlength=hits)

    def span(channel: Int32) -> Int32:
        lowest = np.full(hits, np.iinfo(np.int32).max, dtype=np.int32)
        highest = np.full(hits, np.iinfo(np.int32).min, dtype=np.int32)
        np.minimum.at(lowest, row, channel)
        np.maximum.at(highest, row, channel)
        return np.where(count > 0, highest - lowest + 1, 0).astype(np.int32)

    return Clusters(
        cells=count.astype(np.int32),
        length_u=span(cells.ch0),
        length_v=span(cells.ch1),
        charge=np.bincount(row, weights=cells.value, minlength=hits).astype(np.float32),
    )


def _to_micrometre(lengths: NDArray[np.floating[Any]]) -> Float32:
    """Round lengths in mm to 0.001."""
    return np.round(lengths.astype(np.float64), 3).astype(np.float32)


def _to_six_digits(numbers: NDArray[np.floating[Any]]) -> Float32:
    """Round to six significant digits."""
    exact = numbers.astype(np.float64)
    size = np.abs(exact)
    exponent = np.floor(np.log10(size, out=np.zeros_like(size), where=size > 0))
    scale = 10.0 ** (5 - exponent)
    rounded: Float32 = (np.round(exact * scale) / scale).astype(np.float32)
    return rounded


def write_event(directory: Path, simulated: SimulatedEvent, form: Form = "csv.gz") -> None:
    """Write ``event000000123-hits.csv.gz`` and its cells, particles and truth, in one of the forms.

    Positions of hits are rounded to 1 micrometre, a tenth of the best resolution of the detector;
    all other numbers to six significant digits, as in TrackML's own files. The hits come last and
    every file is written beside and then renamed: an event with a hits file is complete.
    Raises MissingDependencyError without pyarrow (``trackserve[sim]``).
    """
    hits, truth = simulated.event.hits, simulated.event.truth
    assert truth is not None
    assert hits.modules is not None
    particles = truth.particles
    from_particles = truth.particle_id[truth.particle_id != NOISE]
    rows = rows_of(
        from_particles,
        particles.particle_id,
        owner="truth",
        name="particle_id",
        among="the particles",
    )
    made_hits = np.bincount(rows, minlength=len(particles))

    tables: dict[str, dict[str, NDArray[np.generic]]] = {
        "cells": {
            "hit_id": simulated.cells.hit_id,
            "ch0": simulated.cells.ch0,
            "ch1": simulated.cells.ch1,
            "value": _to_six_digits(simulated.cells.value),
        },
        "particles": {
            "particle_id": particles.particle_id,
            "particle_type": simulated.particle_type,
            **{
                name: _to_six_digits(getattr(particles, name))
                for name in ("vx", "vy", "vz", "px", "py", "pz")
            },
            "q": particles.q.astype(np.int64),
            "nhits": made_hits,
        },
        "truth": {
            "hit_id": hits.hit_id,
            "particle_id": truth.particle_id,
            **dict(zip(("tx", "ty", "tz"), _to_micrometre(simulated.true_position).T, strict=True)),
            **dict(
                zip(("tpx", "tpy", "tpz"), _to_six_digits(simulated.true_momentum).T, strict=True)
            ),
            "weight": _to_six_digits(truth.weight),
        },
        "hits": {
            "hit_id": hits.hit_id,
            "x": _to_micrometre(hits.x),
            "y": _to_micrometre(hits.y),
            "z": _to_micrometre(hits.z),
            "volume_id": hits.modules.volume_id,
            "layer_id": hits.modules.layer_id,
            "module_id": hits.modules.module_id,
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        path = directory / f"event{simulated.event.event_id:09d}-{name}.{form}"
        write_table(path, columns)
