"""What is counted: the sets of target particles, how many of them were found, and in which bins.

P   particles of an event       B   bins of a variable
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.evaluate.intervals import Ratio, wilson
from trackserve.evaluate.matching import NO_PARTICLE, Matches, particle_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.event import Bool, Float64, Hits, Int64, Modules, Truth

MAX_PRODUCTION_RADIUS = 2.0
"""Targets are produced nearer to the beam line than this, mm."""
DENSITY_RADIUS = 10.0
"""The local density counts other hits within this distance of a hit, mm."""


@dataclass(frozen=True)
class TargetSet:
    """The particles that count in an efficiency; momenta in GeV, radii in mm.

    Charged particles produced from ``min_radius`` to ``max_radius`` from the beam line count, only
    primary ones where ``primary``. A set of ``pixels`` sees the hits of the pixel detector alone, and
    its particles have hits on at least ``min_hits`` different layers of it. ``own`` sets are those of
    :mod:`trackserve.evaluate.targets`.
    """

    name: str
    min_pt: float
    max_pt: float
    max_eta: float
    min_hits: int
    primary: bool = True
    min_radius: float = 0.0
    max_radius: float = MAX_PRODUCTION_RADIUS
    pixels: bool = False
    own: bool = False

    @property
    def definition(self) -> str:
        """The set in words."""
        pt = (
            f"pT > {self.min_pt:g} GeV"
            if np.isinf(self.max_pt)
            else f"{self.min_pt:g} < pT < {self.max_pt:g} GeV"
        )
        made = ""
        if self.min_radius:
            made = f"produced {self.min_radius:g} to {self.max_radius:g} mm from the beam line, "
        elif np.isfinite(self.max_radius):
            made = f"produced within {self.max_radius:g} mm of the beam line, "
        seen = f"at least {self.min_hits} hits"
        if self.pixels:
            seen = f"hits on at least {self.min_hits} layers of the pixel detector, whose hits alone count"
        primary = "primary, " if self.primary else ""
        return f"charged, {primary}{made}{pt}, |eta| < {self.max_eta:g}, {seen}"

    def select(self, truth: Truth, particle_hits: Int64) -> Bool:
        """Return which particles are targets ``[P]``, given how many hits each one made ``[P]``.

        For a set of pixels these are the layers that it hit.
        """
        particles = truth.particles
        radius = particles.production_radius
        chosen: Bool = (
            (particles.q != 0)
            & (radius >= self.min_radius)
            & (radius < self.max_radius)
            & self.in_pt(particles.pt)
            & (np.abs(particles.eta) < self.max_eta)
            & (particle_hits >= self.min_hits)
        )
        return chosen & particles.primary if self.primary else chosen

    def in_pt(self, pt: Float64) -> Bool:
        """Return which momenta ``[P]`` (GeV) lie in the range of the set."""
        inside: Bool = (pt > self.min_pt) & (pt < self.max_pt)
        return inside


HEADLINE = TargetSet("headline", min_pt=1.0, max_pt=np.inf, max_eta=4.0, min_hits=3)
"""The habit of the TrackML literature."""
STRICT = TargetSet("strict", min_pt=1.0, max_pt=np.inf, max_eta=3.0, min_hits=6)
"""Where a Kalman filter is compared fairly."""
LOW_PT = TargetSet("low_pt", min_pt=0.5, max_pt=1.0, max_eta=4.0, min_hits=3)
SOFT = TargetSet("soft", min_pt=0.2, max_pt=0.5, max_eta=4.0, min_hits=3)
PIXEL = TargetSet(
    "pixel", 0.9, np.inf, max_eta=4.0, min_hits=3, primary=False, max_radius=np.inf, pixels=True
)
"""The benchmark of object condensation, ACORN and HEPTv2 (arXiv:2606.20437)."""
DISPLACED = tuple(
    TargetSet(f"displaced_{low}_{high}", 0.5, np.inf, 4.0, 6, False, low, high)
    for low, high in ((2, 30), (30, 120), (120, 300))
)
"""From decays and from interactions in the material, by where they happen."""
TARGET_SETS = (HEADLINE, STRICT, LOW_PT, SOFT, PIXEL, *DISPLACED)
PIXEL_VOLUMES = (7, 8, 9)
"""Volumes of TrackML's pixel detector: the barrel and its two ends."""
HARD_PT = 0.9
"""Of the tracks whose majority particle is above this momentum (GeV), the fakes are counted apart."""

UNITS = {
    "pt": "GeV",
    "eta": "",
    "phi": "rad",
    "production_radius": "mm",
    "hits": "",
    "density": f"hits within {DENSITY_RADIUS:g} mm",
}
"""The variables that efficiencies are binned in, with their units."""


def bin_edges(variable: str, targets: TargetSet) -> Float64:
    """Return the ``[B + 1]`` edges of a variable's bins; the outermost bins take what lies beyond."""
    highest_pt = min(targets.max_pt, 50.0)
    edges = {
        "pt": np.geomspace(targets.min_pt, highest_pt, 13 if highest_pt == 50 else 6),
        "eta": np.linspace(-targets.max_eta, targets.max_eta, round(4 * targets.max_eta) + 1),
        "phi": np.linspace(-np.pi, np.pi, 17),
        "production_radius": _radius_edges(targets),
        "hits": np.arange(targets.min_hits, 21) - 0.5,
        "density": np.array([0, 0.5, 1, 2, 3, 4, 6, 8, 12, 20, 40, 60, 100]),
    }
    return edges[variable]


def _radius_edges(targets: TargetSet) -> Float64:
    if targets.min_radius:
        return np.geomspace(targets.min_radius, targets.max_radius, 7)
    near = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
    return np.array(near if np.isfinite(targets.max_radius) else [*near, 30, 120, 300], np.float64)


def layers_of(truth: Truth, modules: Modules, rows: Bool) -> Int64:
    """Return on how many different layers each particle has hits ``[P]``.

    ``truth`` is that of the chosen ``rows`` ``[N]`` of ``modules``.
    """
    owner = particle_rows(truth)
    layer = modules.volume_id[rows].astype(np.int64) * 1000 + modules.layer_id[rows]
    pairs = np.unique(np.stack([owner, layer])[:, owner != NO_PARTICLE], axis=1)
    return np.bincount(pairs[0], minlength=len(truth.particles)).astype(np.int64)


def local_density(hits: Hits, rows: Int64) -> Float64:
    """Count, for each of these ``rows`` ``[M]``, the other hits within 10 mm of it ``[M]``."""
    positions = np.stack([hits.x, hits.y, hits.z], axis=1).astype(np.float64)
    if not len(rows):
        return np.zeros(0)
    # Hits sorted by cubic cell: of a hit's 27 cells around, three in a row of z are one range.
    cell = np.floor(positions / DENSITY_RADIUS).astype(np.int64)
    cell -= cell.min(axis=0) - 1
    _, ny, nz = cell.max(axis=0) + 2
    key = (cell[:, 0] * ny + cell[:, 1]) * nz + cell[:, 2]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    near = np.zeros(len(rows))
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            middle = key[rows] + (dx * ny + dy) * nz
            first = np.searchsorted(ordered, middle - 1, side="left")
            length = np.searchsorted(ordered, middle + 1, side="right") - first
            query = np.repeat(np.arange(len(rows)), length)
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            candidate = order[first[query] + within]
            step = positions[candidate] - positions[rows[query]]
            close = np.einsum("ij,ij->i", step, step) <= DENSITY_RADIUS**2
            near += np.bincount(query[close], minlength=len(rows))
    return near - 1


def particle_density(hits: Hits, truth: Truth, particles: Bool) -> Float64:
    """Return the local density around each of these ``particles`` ``[P]``, averaged over its hits.

    Particles that are not asked for, or have no hits, have density 0.
    """
    owner = particle_rows(truth)
    rows = np.flatnonzero(owner != NO_PARTICLE)
    rows = rows[particles[owner[rows]]]
    total = np.bincount(owner[rows], local_density(hits, rows), minlength=len(particles))
    made = np.bincount(owner[rows], minlength=len(particles))
    density: Float64 = total / np.maximum(made, 1)
    return density


@dataclass(frozen=True, eq=False)
class Binned:
    """An efficiency in bins of one variable: ``edges`` ``[B + 1]``, ``passed`` and ``total`` ``[B]``."""

    edges: Float64
    passed: Int64
    total: Int64

    @classmethod
    def count(cls, edges: Float64, values: Float64, passed: Bool) -> Binned:
        """Count all ``values`` and those that ``passed``, in the bins between ``edges``."""
        bins = len(edges) - 1
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
        return cls(
            edges,
            passed=np.bincount(place[passed], minlength=bins),
            total=np.bincount(place, minlength=bins),
        )

    def __add__(self, other: Binned) -> Binned:
        assert np.array_equal(self.edges, other.edges)
        return Binned(self.edges, self.passed + other.passed, self.total + other.total)

    @property
    def value(self) -> Float64:
        """The efficiency in each bin ``[B]``; nan where nothing was counted."""
        return np.where(self.total > 0, self.passed / np.maximum(self.total, 1), np.nan)

    @property
    def interval(self) -> tuple[Float64, Float64]:
        """The ends of the 68.3 % intervals, ``[B]`` each."""
        return wilson(self.passed, self.total)

    def to_json(self) -> dict[str, list[Any]]:
        """Return edges, counts, values and intervals; the value of an empty bin is None."""
        low, high = self.interval
        return {
            "edges": self.edges.tolist(),
            "passed": self.passed.tolist(),
            "total": self.total.tolist(),
            "value": [
                value if total else None
                for value, total in zip(self.value.tolist(), self.total.tolist(), strict=True)
            ],
            "low": low.tolist(),
            "high": high.tolist(),
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Binned:
        """Return the counts that :meth:`to_json` wrote."""
        return cls(
            np.array(written["edges"], np.float64),
            passed=np.array(written["passed"], np.int64),
            total=np.array(written["total"], np.int64),
        )


def track_bins(matches: Matches, truth: Truth) -> dict[str, dict[str, Binned]]:
    """Return the shares of fakes and duplicates in bins of pT, eta (of the majority particle) and hits.

    A track of noise alone has no particle: it is counted in the bins of hits only.
    """
    named = matches.track_particle != NO_PARTICLE
    particle = matches.track_particle[named]
    rates = {"fake rate": ~matches.track_pure, "duplicate rate": matches.track_duplicate}
    edges = {
        "pt": np.concatenate([[0.0, 0.1, 0.2, 0.3, 0.5, 0.7], np.geomspace(1, 50, 8)]),
        "eta": np.linspace(-4, 4, 17),
        "hits": np.arange(3, 21) - 0.5,
    }
    values = {"pt": truth.particles.pt[particle], "eta": truth.particles.eta[particle]}
    binned = {
        variable: {
            name: Binned.count(edges[variable], value, rate[named]) for name, rate in rates.items()
        }
        for variable, value in values.items()
    }
    hits = matches.track_hits.astype(np.float64)
    binned["hits"] = {n: Binned.count(edges["hits"], hits, rate) for n, rate in rates.items()}
    return binned


def fakes_above(matches: Matches, particles: Bool) -> Ratio:
    """Return the share of fakes among the tracks whose majority particle is one of these ``[P]``."""
    named = matches.track_particle != NO_PARTICLE
    of_these = np.zeros(len(named), np.bool_)
    of_these[named] = particles[matches.track_particle[named]]
    return Ratio(int((of_these & ~matches.track_pure).sum()), int(of_these.sum()))


@dataclass(frozen=True, eq=False)
class TargetCounts:
    """How the targets of one set fared in one event, or in several added up.

    ``duplicates`` counts further tracks of targets over all tracks of targets, ``fakes`` the fakes
    among tracks whose majority particle has a momentum of the set; ``losses`` states what the targets
    without a double-majority match died of, ``bins`` holds the efficiency by variable.
    """

    efficiency: Ratio
    single_majority: Ratio
    perfect: Ratio
    duplicates: Ratio
    fakes: Ratio
    losses: Mapping[str, int]
    bins: Mapping[str, Binned] = field(repr=False)

    def __add__(self, other: TargetCounts) -> TargetCounts:
        return TargetCounts(
            self.efficiency + other.efficiency,
            self.single_majority + other.single_majority,
            self.perfect + other.perfect,
            self.duplicates + other.duplicates,
            self.fakes + other.fakes,
            {name: self.losses[name] + other.losses[name] for name in self.losses},
            {name: self.bins[name] + other.bins[name] for name in self.bins},
        )

    @classmethod
    def count(
        cls,
        targets: TargetSet,
        truth: Truth,
        matches: Matches,
        *,
        chosen: Bool,
        density: Float64,
        losses: Mapping[str, int],
    ) -> TargetCounts:
        """Count the ``chosen`` ``[P]`` of one event, given its particles' local ``density`` ``[P]``."""
        total = int(chosen.sum())
        single = int(matches.particle_single_majority[chosen].sum())
        further = int(matches.duplicates[chosen].sum())
        particles = truth.particles
        values = {
            "pt": particles.pt,
            "eta": particles.eta,
            "phi": particles.phi,
            "production_radius": particles.production_radius,
            "hits": matches.particle_hits.astype(np.float64),
            "density": density,
        }
        found = matches.particle_matched[chosen]
        return cls(
            efficiency=Ratio(int(found.sum()), total),
            single_majority=Ratio(single, total),
            perfect=Ratio(int(matches.particle_perfect[chosen].sum()), total),
            duplicates=Ratio(further, single + further),
            fakes=fakes_above(matches, chosen if targets.own else targets.in_pt(particles.pt)),
            losses=losses,
            bins={
                name: Binned.count(bin_edges(name, targets), value[chosen], found)
                for name, value in values.items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return every number as nested dicts."""
        return {
            "efficiency": self.efficiency.to_json(),
            "single_majority": self.single_majority.to_json(),
            "perfect": self.perfect.to_json(),
            "target_duplicate_rate": self.duplicates.to_json(),
            "target_fake_rate": self.fakes.to_json(),
            "lost": dict(self.losses),
            "bins": {
                name: {"unit": UNITS[name], **binned.to_json()}
                for name, binned in self.bins.items()
            },
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> TargetCounts:
        """Return the counts that :meth:`to_json` wrote."""
        return cls(
            efficiency=Ratio.from_json(written["efficiency"]),
            single_majority=Ratio.from_json(written["single_majority"]),
            perfect=Ratio.from_json(written["perfect"]),
            duplicates=Ratio.from_json(written["target_duplicate_rate"]),
            fakes=Ratio.from_json(written["target_fake_rate"]),
            losses=dict(written["lost"]),
            bins={name: Binned.from_json(each) for name, each in written["bins"].items()},
        )
