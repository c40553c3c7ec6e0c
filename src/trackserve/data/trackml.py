"""Events in the format of the TrackML challenge: one CSV table each of hits, cells, particles, truth.

The format is described at https://www.kaggle.com/c/trackml-particle-identification/data and in
Amrouche et al., "The Tracking Machine Learning challenge: Accuracy phase", arXiv:1904.06778.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.data.tables import write_table
from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.event import Event, Float32, Int32, Int64


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


def write_event(directory: Path, simulated: SimulatedEvent, *, compress: bool = True) -> None:
    """Write ``event000000123-hits.csv`` and its cells, particles and truth (.gz if compressed).

    Positions of hits are rounded to 1 micrometre, a tenth of the best resolution of the detector;
    all other numbers to six significant digits, as in TrackML's own files. The hits come last and
    every file is written beside and then renamed: an event with a hits file is complete.
    Raises MissingDependencyError without pyarrow (``trackserve[sim]``).
    """
    hits, truth = simulated.event.hits, simulated.event.truth
    assert truth is not None
    assert hits.modules is not None
    particles = truth.particles
    order = np.argsort(particles.particle_id)
    made_hits = np.zeros(len(particles), dtype=np.int64)
    from_particle = truth.particle_id[np.isin(truth.particle_id, particles.particle_id)]
    rows = order[np.searchsorted(particles.particle_id, from_particle, sorter=order)]
    np.add.at(made_hits, rows, 1)

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
    suffix = ".csv.gz" if compress else ".csv"
    for name, columns in tables.items():
        path = directory / f"event{simulated.event.event_id:09d}-{name}{suffix}"
        write_table(path, columns, compress=compress)
