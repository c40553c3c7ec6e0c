"""How like the real events the simulated ones are: distributions of both, and a distance for each.

Two folders of events in TrackML's format are compared by what every such event has: its hits and
its list of particles with their numbers of hits. What needs cells or truth is compared with
``REFERENCE``, measured once on a real event with truth.

Distances are between 0 (the same) and 1: of a continuous quantity the Kolmogorov-Smirnov distance,
the largest difference of the cumulative distributions; of counts in classes the total variation,
half the sum of the differences of their shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.data.tables import read_table
from trackserve.data.trackml import find_events
from trackserve.errors import InputError
from trackserve.event import NOISE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trackserve.data.trackml import TrackMLEvent
    from trackserve.event import Float64, Int64

VOLUMES = (7, 8, 9, 12, 13, 14, 16, 17, 18)
PRIMARY_RADIUS = 2.0
"""Particles produced within this distance of the beam line count as primary, mm."""
HARD_PT = 1.0
"""The number of hits is compared for primaries of more transverse momentum, GeV."""
REFERENCE: Mapping[str, tuple[float, ...]] = {
    "noise by volume": (0.045, 0.099, 0.040, 0.065, 0.297, 0.059, 0.029, 0.321, 0.046),
    "cells of a particle's hit": (1.6, 7.0, 1.6, 1.8, 2.5, 1.7, 3.0, 3.2, 3.1),
    "cells of a noise hit": (4.5, 7.3, 4.1, 2.4, 2.7, 2.1, 2.7, 2.4, 2.2),
    "resolution in r phi, um": (12, 9, 11, 13, 16, 14, 64, 20, 62),
}
"""By volume, from a real event of 5,527 hits with truth; the resolution is a median distance."""
_QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90, 0.99)
_RADII = (0.0, 2.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1100.0)
_ETA = tuple(0.5 * step for step in range(9))
_MOST_HITS = 18


@dataclass(frozen=True, eq=False)
class Sample:
    """Particles [P], charged ones only, and hits [N] of many events; mm and GeV.

    ``event`` is the row of the event of a particle, ``hits_of_event`` ``[E]`` counts the hits.
    """

    event: Int64
    vertex: Float64
    momentum: Float64
    charge: Float64
    hits: Int64
    hits_of_event: Int64
    hits_of_volume: Int64

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.hits_of_event)

    @property
    def radius(self) -> Float64:
        """Production radius, mm."""
        radius: Float64 = np.hypot(self.vertex[:, 0], self.vertex[:, 1])
        return radius

    @property
    def pt(self) -> Float64:
        """Transverse momentum, GeV."""
        pt: Float64 = np.hypot(self.momentum[:, 0], self.momentum[:, 1])
        return pt

    @property
    def eta(self) -> Float64:
        """Absolute pseudorapidity of the momentum."""
        eta: Float64 = np.abs(np.arcsinh(self.momentum[:, 2] / self.pt))
        return eta


@dataclass(frozen=True)
class Row:
    """One comparison: a number for each label of real and simulated events, and their distance."""

    name: str
    labels: tuple[str, ...]
    real: tuple[float, ...]
    simulated: tuple[float, ...]
    distance: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "real": list(self.real),
            "simulated": list(self.simulated),
            "distance": self.distance,
        }


def read_sample(path: Path) -> Sample:
    """Read the particles and the hits of all events at a path (folder or .zip).

    Raises InputError where there is none or particles lack ``nhits``.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("event", "vertex", "momentum", "q", "n")}
    hits, by_volume = [], np.zeros(len(VOLUMES), dtype=np.int64)
    kinematics = dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz", "q"), np.float64)
    for number, source in enumerate(find_events(path)):
        table = read_table(source.file("particles"), {**kinematics, "nhits": np.int64})
        charged = table["q"] != 0
        for name, parts in (("vertex", ("vx", "vy", "vz")), ("momentum", ("px", "py", "pz"))):
            columns[name].append(np.column_stack([table[part] for part in parts])[charged])
        columns["q"].append(table["q"][charged])
        columns["n"].append(table["nhits"][charged])
        columns["event"].append(np.full(np.count_nonzero(charged), number))
        volume = read_table(source.file("hits"), {"volume_id": np.int64})["volume_id"]
        hits.append(len(volume))
        by_volume += (volume[:, None] == np.array(VOLUMES)).sum(axis=0)
    if not hits:
        message = f"{path} holds no events; expected a folder of events in TrackML's format"
        raise InputError(message)
    event, vertex, momentum, charge, made = (np.concatenate(parts) for parts in columns.values())
    return Sample(event, vertex, momentum, charge, made, np.array(hits), by_volume)


def kolmogorov_smirnov(one: Float64, other: Float64) -> float:
    """Return the largest difference of the cumulative distributions of two samples."""
    every = np.concatenate([one, other])
    below = [
        np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (one, other)
    ]
    return float(np.abs(below[0] - below[1]).max())


def total_variation(one: Sequence[float] | Int64, other: Sequence[float] | Int64) -> float:
    """Return half the sum of the differences of two sets of counts or shares, each summing to 1."""
    shares = [np.asarray(each, np.float64) / np.sum(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def compare(real: Sample, simulated: Sample) -> list[Row]:
    """Compare two samples in everything that particles and hits show."""
    both = (real, simulated)
    rows = [_per_event(*both), _vertices(*both)]
    rows += [
        _quantiles("pT of particles with hits, GeV", *(each.pt[each.hits > 0] for each in both)),
        _quantiles(
            "pT of displaced particles with hits, GeV",
            *(each.pt[(each.hits > 0) & (each.radius > PRIMARY_RADIUS)] for each in both),
        ),
        _classes(
            "|eta| of primaries",
            [f"{low:g}-{low + 0.5:g}" for low in _ETA[:-1]],
            *(np.histogram(e.eta[e.radius < PRIMARY_RADIUS], _ETA)[0] for e in both),
        ),
        _classes(
            "hits of a primary above 1 GeV",
            [*map(str, range(_MOST_HITS)), f"{_MOST_HITS} or more"],
            *(hits_of_hard_primaries(each) for each in both),
        ),
    ]
    edges = [f"{low:g}-{high:g}" for low, high in pairwise(_RADII)]
    for name, least in (("with hits", 1), ("listed", 0)):
        counts = [np.histogram(e.radius[e.hits >= least], _RADII)[0] for e in both]
        rows.append(
            Row(
                f"particles {name} by production radius, mm, an event",
                tuple(edges),
                tuple((counts[0] / real.events).tolist()),
                tuple((counts[1] / simulated.events).tolist()),
                total_variation(*counts),
            )
        )
    names = [str(volume) for volume in VOLUMES]
    rows.append(_classes("hits by volume", names, *(each.hits_of_volume for each in both)))
    several = ["1", "2", "3", "4", "5 or more"]
    rows.append(_classes("particles from one displaced vertex", several, *map(_vertex_sizes, both)))
    return rows


def hits_of_hard_primaries(sample: Sample) -> Int64:
    """Count primaries above 1 GeV by their number of hits, 0 to 18 or more."""
    hard = (sample.radius < PRIMARY_RADIUS) & (sample.pt > HARD_PT)
    return np.bincount(np.minimum(sample.hits[hard], _MOST_HITS), minlength=_MOST_HITS + 1)


def _per_event(real: Sample, simulated: Sample) -> Row:
    def numbers(sample: Sample) -> tuple[float, ...]:
        hits = sample.hits_of_event
        seen = sample.hits > 0
        return (
            *(float(each) for each in (hits.mean(), hits.min(), hits.max())),
            len(sample.hits) / sample.events,
            np.count_nonzero(seen) / sample.events,
            np.count_nonzero(seen & (sample.radius < PRIMARY_RADIUS)) / sample.events,
        )

    labels = ("hits", "fewest hits", "most hits", "listed", "with hits", "primary with hits")
    return Row("an event", labels, numbers(real), numbers(simulated))


def _vertices(real: Sample, simulated: Sample) -> Row:
    def places(sample: Sample) -> Float64:
        prompt = sample.radius < 0.1
        each: Float64 = np.unique(np.column_stack([sample.event, sample.vertex])[prompt], axis=0)[
            :, 1:
        ]
        return each

    one, other = places(real), places(simulated)
    spread = [(1e3 * float(each[:, 0].std()), float(each[:, 2].std())) for each in (one, other)]
    labels = ("spread in x, um", "spread in z, mm")
    return Row("vertices", labels, spread[0], spread[1], kolmogorov_smirnov(one[:, 2], other[:, 2]))


def _vertex_sizes(sample: Sample) -> Int64:
    """Count displaced vertices by the charged particles that come from them, 1 to 5 or more."""
    displaced = sample.radius > PRIMARY_RADIUS
    place = np.column_stack([sample.event, sample.vertex])[displaced]
    _, sizes = np.unique(place, axis=0, return_counts=True)
    return np.bincount(np.minimum(sizes, 5), minlength=6)[1:]


def _quantiles(name: str, real: Float64, simulated: Float64) -> Row:
    found = [tuple(np.quantile(each, _QUANTILES).tolist()) for each in (real, simulated)]
    labels = tuple(f"{quantile:.0%}" for quantile in _QUANTILES)
    return Row(name, labels, found[0], found[1], kolmogorov_smirnov(real, simulated))


def _classes(name: str, labels: Sequence[str], real: Int64, simulated: Int64) -> Row:
    shares = [tuple((each / each.sum()).tolist()) for each in (real, simulated)]
    distance = total_variation(real, simulated)
    return Row(name, tuple(labels), shares[0], shares[1], distance)


# ---- what needs cells and truth


def compare_with_reference(path: Path) -> list[Row]:
    """Compare noise, clusters and resolution of simulated events with ``REFERENCE``.

    The distance of what is no share is the mean of |log ratio| over volumes.
    """
    parts = [_by_volume(source) for source in find_events(path)]
    found = [np.concatenate(each) for each in zip(*parts, strict=True)]
    volume, cells, noise, off = found
    inside = volume[:, None] == np.array(VOLUMES)

    def mean_cells(chosen: Any) -> tuple[float, ...]:
        return tuple(float(cells[chosen & inside[:, each]].mean()) for each in range(len(VOLUMES)))

    counts = inside[noise].sum(axis=0)
    simulated = {
        "noise by volume": tuple((counts / counts.sum()).tolist()),
        "cells of a particle's hit": mean_cells(~noise),
        "cells of a noise hit": mean_cells(noise),
        "resolution in r phi, um": tuple(
            float(np.median(off[~noise & inside[:, each]])) for each in range(len(VOLUMES))
        ),
    }
    labels = tuple(str(each) for each in VOLUMES)
    rows = [Row("noise, share of hits", ("all",), (0.15,), (float(noise.mean()),))]
    for name, real in REFERENCE.items():
        ours = simulated[name]
        ratio = float(np.abs(np.log(np.array(ours) / np.array(real))).mean())
        shares = name == "noise by volume"
        distance = total_variation(real, ours) if shares else ratio
        rows.append(Row(name, labels, tuple(map(float, real)), ours, distance))
    return rows


def _by_volume(source: TrackMLEvent) -> tuple[Any, ...]:
    """Return volume, number of cells, whether noise, and distance from truth in um of each hit."""
    event = source.read(cells=True)
    assert event.truth is not None
    assert event.hits.modules is not None
    assert event.hits.clusters is not None
    columns = dict.fromkeys(("tx", "ty"), np.float64)
    truth = read_table(source.file("truth"), {"hit_id": np.int64, **columns})
    order = np.argsort(truth["hit_id"])[
        np.searchsorted(np.sort(truth["hit_id"]), event.hits.hit_id)
    ]
    x, y = truth["tx"][order], truth["ty"][order]
    across = ((event.hits.y - y) * x - (event.hits.x - x) * y) / np.hypot(x, y)
    return (
        event.hits.modules.volume_id,
        event.hits.clusters.cells,
        event.truth.particle_id == NOISE,
        1e3 * np.abs(across),
    )
