"""Truth: the particles of a simulated event, and which of them made each hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.checks import check_columns
from trackserve.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trackserve.event.arrays import Bool, Float64, Int64
    from trackserve.event.hits import Hits

NOISE = 0
"""Particle id of a hit that no particle made (TrackML's convention)."""


@dataclass(frozen=True, eq=False)
class Particles:
    """The simulated particles of one event, one row each ``[P]``.

    ``vx``, ``vy``, ``vz`` is where a particle was produced (mm), ``px``, ``py``, ``pz`` its
    momentum there (GeV), ``q`` its charge (e). ``primary`` is False for what a secondary
    interaction or the decay of another simulated particle made.
    """

    particle_id: Int64
    vx: Float64
    vy: Float64
    vz: Float64
    px: Float64
    py: Float64
    pz: Float64
    q: Float64
    primary: Bool

    def __post_init__(self) -> None:
        numbers = ("vx", "vy", "vz", "px", "py", "pz", "q")
        check_columns(
            self,
            {"particle_id": np.int64, **dict.fromkeys(numbers, np.float64), "primary": np.bool_},
        )
        if len(np.unique(self.particle_id)) != len(self.particle_id):
            message = "a particle id occurs more than once among the particles; ids must be unique"
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.particle_id)

    @property
    def pt(self) -> Float64:
        """Transverse momentum ``[P]``, GeV."""
        pt: Float64 = np.hypot(self.px, self.py)
        return pt

    @property
    def eta(self) -> Float64:
        """Pseudorapidity of the momentum ``[P]``; infinite along the beam line."""
        with np.errstate(divide="ignore", invalid="ignore"):
            eta: Float64 = np.arcsinh(self.pz / self.pt)
        return np.nan_to_num(eta, nan=0.0, posinf=np.inf, neginf=-np.inf)

    @property
    def phi(self) -> Float64:
        """Azimuth of the momentum ``[P]``, rad in (-pi, pi]."""
        phi: Float64 = np.arctan2(self.py, self.px)
        return phi

    @property
    def production_radius(self) -> Float64:
        """Distance of the production point from the beam line ``[P]``, mm."""
        radius: Float64 = np.hypot(self.vx, self.vy)
        return radius


@dataclass(frozen=True, eq=False)
class Truth:
    """Which particle made each hit: known for simulated events, never seen by the served path.

    ``particle_id`` is int64 ``[N]`` (0 for noise), row by row as the hits; ``weight`` is float64
    ``[N]``, TrackML's importance of each hit (sums to 1 over an event, 0 for noise).
    """

    particle_id: Int64
    weight: Float64
    particles: Particles

    def __post_init__(self) -> None:
        check_columns(self, {"particle_id": np.int64, "weight": np.float64})
        known = np.isin(self.particle_id, self.particles.particle_id) | (self.particle_id == NOISE)
        if not known.all():
            message = (
                f"hit row {np.flatnonzero(~known)[0]}: particle id "
                f"{self.particle_id[~known][0]} is not among the particles"
            )
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.particle_id)

    def select(self, rows: NDArray[np.integer[Any]] | Bool) -> Truth:
        """Return the truth of the hits of these rows, in this order; all particles stay."""
        return Truth(self.particle_id[rows], self.weight[rows], self.particles)


@dataclass(frozen=True, eq=False)
class Event:
    """One event as read from disk: its hits and, where the source has it, their truth."""

    event_id: int
    hits: Hits
    truth: Truth | None = None

    def __post_init__(self) -> None:
        if self.truth is not None and len(self.truth) != len(self.hits):
            message = (
                f"event {self.event_id}: truth describes {len(self.truth)} hits; "
                f"expected {len(self.hits)}"
            )
            raise InputError(message)
