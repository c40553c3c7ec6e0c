"""What one event may need, checked before the work is spent.

An event in the wrong unit, with swapped axes, of another detector or made to harm would link every hit
to every other. So an event has a budget: where its hits lie, how dense they are, how many edges and
triplets there are, and how long it takes. Every engine raises the same error for the same event.

    r, phi, z  position of each hit [N]: mm, rad, mm
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from trackserve.errors import OVER_BUDGET, BudgetError, BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.event import Float32, Int64

MARGIN = 1.2
"""Hits are far outside of a detector beyond this many times its extent."""
UNITS = {"m": 1000.0, "cm": 10.0, "um": 0.001}
"""Units (mm) that an event may have been written in by mistake."""
FREE_EDGES, FREE_TRIPLETS, FREE_SECONDS = 50_000, 500_000, 30.0
"""What every event may have on top of its hits' share: a small one is no burden."""
EDGE_BYTES, TRIPLET_BYTES = 64, 16
"""Memory that an edge of the search and a pair of edges that meet take, at their peak."""
BUCKETS = 2**17


@dataclass(frozen=True)
class Extent:
    """Where the hits of a detector lie: r (mm) from the first to the second number, z (mm) on either side."""

    r: tuple[float, float] = (0.0, np.inf)
    z: float = np.inf

    def __post_init__(self) -> None:
        if len(self.r) != 2 or not 0 <= self.r[0] < self.r[1] or not self.z > 0:
            message = (
                f"extent has r {list(self.r)} and z {self.z}; expected the least and the greatest r "
                "and the greatest |z| of a hit, mm"
            )
            raise BundleError(message)

    @property
    def known(self) -> bool:
        """Whether it bounds anything."""
        return bool(np.isfinite([self.r[1], self.z]).all())


KNOWN = {"trackml": Extent((30.0, 1030.0), 2960.0)}
"""The extents of detectors whose older bundles don't state them; no other extent is assumed."""


@dataclass(frozen=True)
class Budget:
    """The bounds of one event.

    ``outside`` is what happens to an event whose hits lie far outside of ``extent``: ``refuse`` or
    ``warn``. ``hits`` bounds their number, ``dense`` how many lie within about 1 mm, where the extent is
    known. ``edges`` (that the neighbour search leaves), ``triplets`` (pairs of edges that meet in a hit,
    before any cut) and ``seconds`` are per hit, on top of :data:`FREE_EDGES`, :data:`FREE_TRIPLETS` and
    :data:`FREE_SECONDS`; ``memory`` (MiB) bounds edges and triplets, too.
    """

    extent: Extent = field(default_factory=Extent)
    outside: Literal["refuse", "warn"] = "refuse"
    hits: int = 500_000
    dense: int = 100
    edges: float = 200.0
    triplets: float = 1000.0
    seconds: float = 0.001
    memory: float = 4096.0

    def __post_init__(self) -> None:
        if self.outside not in {"refuse", "warn"}:
            message = f"budget.outside is {self.outside!r}; expected refuse or warn"
            raise BundleError(message)
        for name in NUMBERS:
            if not getattr(self, name) > 0:
                message = f"budget.{name} is {getattr(self, name)}; expected a positive number"
                raise BundleError(message)

    def changed(self, values: Mapping[str, float | str]) -> Budget:
        """Return the budget with other values for some of :data:`SETTINGS`; raises :class:`BundleError`."""
        for name, value in values.items():
            kind = str if name == "outside" else (int, float)
            if name not in SETTINGS or not isinstance(value, kind) or isinstance(value, bool):
                message = (
                    f"budget.{name} is {value!r}; expected a number for one of {', '.join(NUMBERS)}, "
                    "or outside: refuse or warn"
                )
                raise BundleError(message)
        return replace(self, **values)  # type: ignore[arg-type]  # checked above

    def limits(self, hits: int) -> Limits:
        """Return what an event of this many hits may need."""
        most = self.memory * 2**20
        return Limits(
            hits,
            edges=_whole(min(FREE_EDGES + self.edges * hits, most / EDGE_BYTES)),
            triplets=_whole(min(FREE_TRIPLETS + self.triplets * hits, most / TRIPLET_BYTES)),
            seconds=FREE_SECONDS + self.seconds * hits,
        )

    def check(self, r: Float32, phi: Float32, z: Float32) -> None:
        """Raise :class:`BudgetError` for too many hits, for where they lie, or for how dense they are."""
        if len(r) > self.hits:
            message = f"the event has {len(r):,} hits; expected at most {self.hits:,.0f}"
            raise _over(message)
        if not len(r) or not self.extent.known:
            return
        if found := self.misplaced(r, z):
            if self.outside == "refuse":
                raise _over(found)
            warnings.warn(found, stacklevel=2)
        if len(r) > self.dense and (crowd := _densest(r, phi, z, self.dense)) is not None:
            many, place = crowd
            message = (
                f"{many:,} hits lie within 1 mm, at {place}; expected at most {self.dense:,.0f}: are all "
                "hits different, and in mm?"
            )
            raise _over(message)

    def misplaced(self, r: Float32, z: Float32) -> str | None:
        """Return what is wrong with where hits lie, None if nothing is or the extent isn't known."""
        return _misplaced(r, z, self.extent) if len(r) and self.extent.known else None


SETTINGS = tuple(each.name for each in fields(Budget))[1:]
"""What [budget] of a bundle, and the settings of a service, may state."""
NUMBERS = SETTINGS[1:]


@dataclass(frozen=True)
class Limits:
    """What one event of ``hits`` hits may need: whole numbers of edges and triplets, and seconds."""

    hits: int
    edges: int
    triplets: int
    seconds: float

    def over_edges(self) -> BudgetError:
        """Return the error for too many edges."""
        return _over(
            f"the search links {self.hits:,} hits by more than {self.edges:,} edges, this bundle's "
            "most: are the hits of its detector, and in mm?"
        )

    def over_triplets(self) -> BudgetError:
        """Return the error for too many pairs of edges."""
        return _over(
            f"more than {self.triplets:,} pairs of edges, this bundle's most, meet in the {self.hits:,} "
            "hits: are the hits of its detector, and in mm?"
        )

    def over_seconds(self) -> BudgetError:
        """Return the error for an event that takes too long."""
        return _over(
            f"the event of {self.hits:,} hits was given up after {self.seconds:.3g} s, the longest that "
            "it may take: are the hits of this bundle's detector, and in mm?"
        )

    def over(self, bound: str) -> BudgetError:
        """Return the error for one of its bounds: ``edges``, ``triplets`` or ``seconds``."""
        error: BudgetError = getattr(self, f"over_{bound}")()
        return error

    def check_edges(self, edges: int) -> None:
        """Raise :class:`BudgetError` for more edges."""
        if edges > self.edges:
            raise self.over_edges()

    def check_triplets(self, inner: Int64, outer: Int64) -> None:
        """Raise :class:`BudgetError` if more pairs of these edges ``[E]`` meet in a hit."""
        ending = np.bincount(outer, minlength=self.hits)
        starting = np.bincount(inner, minlength=self.hits)
        if int(ending @ starting) > self.triplets:
            raise self.over_triplets()


class Watch:
    """Measures the time of one event, from when it is made."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        """The seconds that are left, at least a little."""
        return max(1e-3, self._limits.seconds - (time.monotonic() - self._began))

    def check(self) -> None:
        """Raise :class:`BudgetError` once the time is over."""
        if time.monotonic() - self._began > self._limits.seconds:
            raise self._limits.over_seconds()


class EdgeMeter(Watch):
    """Counts what the blocks of a neighbour search want; threads may share it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._wanted: list[int] = []

    def add(self, edges: int) -> None:
        """Count edges; raises :class:`BudgetError` once they are too many, whatever comes."""
        self._wanted.append(edges)
        if sum(self._wanted) > 2 * self._limits.edges:  # both hits of an edge may want it
            raise self._limits.over_edges()


def _over(message: str) -> BudgetError:
    return BudgetError(f"{OVER_BUDGET}{message}")


def _whole(number: float) -> int:
    return int(min(number, 2**31 - 1))  # compiled engines count in 32 bits


def _misplaced(r: Float32, z: Float32, extent: Extent) -> str | None:
    """Return what is wrong with where hits lie, None if nothing is."""
    height = np.abs(z)
    reach_r, reach_z = float(r.max()), float(height.max())
    least, most = extent.r
    beyond = reach_r > MARGIN * most or reach_z > MARGIN * extent.z or r.min() < 0
    if not beyond and np.count_nonzero(r < least / MARGIN) * 2 <= len(r):
        return None
    reach, expected = max(reach_r, reach_z), max(most, extent.z)
    axes = most < reach_r <= MARGIN * extent.z and reach_z <= MARGIN * most
    unit = next(
        (u for u, mm in UNITS.items() if expected / 4 <= reach * mm <= MARGIN * expected), None
    )
    if axes:
        guess = "are axes swapped?"
    else:
        guess = "are these mm?" if unit is None or axes else f"are these {unit}, not mm?"
    return (
        f"x, y, z reach {_mm(reach_r)} from the beam line and {_mm(reach_z)} along it; hits of this "
        f"bundle's detector lie from {_mm(least)} to {_mm(most)} and up to {_mm(extent.z)}: {guess}"
    )


def _mm(length: float) -> str:
    return f"{length:,.0f} mm" if 10 <= length < 1e7 else f"{length:.3g} mm"


def _densest(r: Float32, phi: Float32, z: Float32, most: int) -> tuple[int, str] | None:
    """Return the hits of the fullest cube of 1 mm, and where it is, if there are more than ``most``.

    Cubes are numbered by a hash first: only where one of :data:`BUCKETS` is full are they looked at.
    """
    bound = np.float32(1e9)
    along = [np.rint(np.clip(c, -bound, bound)).astype(np.int64) for c in (r, r * phi, z)]
    bucket = (along[0] * 73856093 ^ along[1] * 19349663 ^ along[2] * 83492791) % BUCKETS
    count = np.bincount(bucket, minlength=BUCKETS)
    if count.max() <= most:
        return None
    full = np.flatnonzero(count[bucket] > most)
    _, first, many = np.unique(
        np.stack(along, axis=1)[full], axis=0, return_index=True, return_counts=True
    )
    fullest = int(many.argmax())
    if many[fullest] <= most:
        return None
    hit = full[first[fullest]]
    place = f"r {r[hit]:.4g} mm, phi {phi[hit]:.3g}, z {z[hit]:.4g} mm"
    return int(many[fullest]), place
