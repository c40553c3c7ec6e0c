"""A fast fit of each track: a helix in the measured field, straight where the field ends.

A circle through three hits of the track is the reference. A Kalman filter runs inwards along it, over
the distances of the hits from that circle and, in arc length and z, from a straight line, with
scattering in each layer. Both are linear in what is fitted. The fall-off of the field along z is part
of the transport, so the curvature that is fitted is the one at the centre of the detector. Sources:
Fruhwirth, NIM A 262 (1987) 444; Karimaki, NIM A 305 (1991) 187; Highland, NIM 129 (1975) 497.

    T  tracks                H  hits on tracks, those of a track one behind the other, outwards
    s  arc length, mm        k  signed curvature, 1/mm; positive turns to the left
    u  distance to the left  cot  cotangent of the polar angle, dz/ds
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import BundleError
from trackserve.pipeline.circle import STRAIGHT, Circles, circles, length
from trackserve.pipeline.features import cylindrical

if TYPE_CHECKING:
    from trackserve.event import Bool, Float32, Float64, Int64
    from trackserve.pipeline.features import FeatureColumns

GEV_PER_T_MM = 0.299792458e-3
"""Transverse momentum of a particle of charge 1, over the field and its radius of curvature."""
SCATTERING = 0.0136
"""Highland's constant, GeV."""
PION_MASS = 0.13957
LEAST_MOMENTUM = 0.05
"""Scattering stops growing below this, GeV."""
FIRST_VARIANCE = ((1e2, 1.0, 1e-4), (1e4, 1e2))
"""Variance before the first hit: of u, its slope and k about the circle, of z and cot about the line."""
LEAST_VARIANCE = 1e-12
"""Of a measurement, mm^2: where a track has no direction against its hits, none is exact."""
LEAST_WEIGHT = 1e-300
"""Of a measurement, 1/mm^2: where numbers have no sense, its logarithm has."""
FEWEST_HITS = 3
"""A circle needs as many."""


@dataclass(frozen=True)
class Region:
    """The detector up to radius ``r`` (mm): a barrel within ``z`` (mm) of the centre, discs beyond.

    ``barrel`` and ``disc`` each have the resolution across a track in the transverse plane (mm), that
    along z in the barrel or along r in a disc (mm), and the thickness of a layer in radiation lengths.
    """

    r: float
    z: float
    barrel: tuple[float, float, float]
    disc: tuple[float, float, float]

    def __post_init__(self) -> None:
        numbers = (self.r, self.z, *self.barrel, *self.disc)
        if len(self.barrel) != 3 or len(self.disc) != 3 or not all(0 < n < np.inf for n in numbers):
            message = (
                f"fit.regions has {self}; expected positive numbers, three each for barrel and disc"
            )
            raise BundleError(message)


@dataclass(frozen=True)
class FitSettings:
    """The detector as the fit sees it: the field along the beam line, and the regions by radius.

    ``field`` (T) is given at ``field_z`` (mm, rising) and is the same at -z.
    """

    field_z: tuple[float, ...]
    field: tuple[float, ...]
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        z, r = np.array(self.field_z), np.array([region.r for region in self.regions])
        if len(z) != len(self.field) or not len(z) or (np.diff(z) <= 0).any() or not self.field[0]:
            message = (
                f"fit.field has {len(self.field)} values at {len(z)} places; expected one at each "
                "place, places that rise, and a field that is not 0 at the first"
            )
            raise BundleError(message)
        if not len(r) or (np.diff(r) <= 0).any():
            message = f"fit.regions end at radii {r.tolist()}; expected one or more that rise"
            raise BundleError(message)


@dataclass(frozen=True, eq=False)
class Points:
    """Hits as the fit sees them, each ``[N]``: place (mm), resolution (mm), thickness, field.

    ``thickness`` is in radiation lengths, ``field`` is relative to that at the centre.
    """

    x: Float64
    y: Float64
    z: Float64
    disc: Bool
    across: Float64
    along: Float64
    thickness: Float64
    field: Float64

    def take(self, rows: Int64) -> Points:
        """Return these rows."""
        return Points(*(getattr(self, each.name)[rows] for each in fields(self)))


@dataclass(frozen=True, eq=False)
class Fits:
    """What is fitted of each track, where it comes closest to the beam line; each ``[T]``.

    ``curvature`` (1/mm) is that at the centre of the detector, ``phi`` (rad) the direction there,
    ``d0`` (mm) how far to the left of the beam line the track passes, seen along the track, ``z0``
    (mm) and ``cot``. ``variance`` ``[T, 5]`` has theirs, in this order. ``chi2`` has
    ``2 * hits - 5`` degrees of freedom; ``deviance`` is minus twice the logarithm of the likelihood,
    up to 1.84 a number measured: chi2, and the logarithms of the variances with which each was expected.
    """

    curvature: Float64
    phi: Float64
    d0: Float64
    z0: Float64
    cot: Float64
    variance: Float64
    chi2: Float64
    deviance: Float64
    hits: Int64

    def take(self, tracks: Int64) -> Fits:
        """Return these tracks."""
        return Fits(*(getattr(self, each.name)[tracks] for each in fields(self)))

    @property
    def reduced_chi2(self) -> Float64:
        """Return chi2 over the degrees of freedom ``[T]``."""
        return self.chi2 / (2 * self.hits - 5)


def points_of(features: Float32, columns: FeatureColumns, settings: FitSettings) -> Points:
    """Return hits, given by their features ``[N, F]``, as the fit sees them."""
    r, phi, z = (column.astype(np.float64) for column in cylindrical(features, columns))
    regions = settings.regions
    region = np.searchsorted([each.r for each in regions[:-1]], r)
    disc = np.abs(z) > np.array([each.z for each in regions])[region]
    numbers = np.array([[each.barrel, each.disc] for each in regions])
    across, along, thickness = numbers[region, disc.astype(np.int64)].T
    return Points(
        r * np.cos(phi), r * np.sin(phi), z, disc, across, along, thickness, _field(z, settings)
    )


def _field(z: Float64, settings: FitSettings) -> Float64:
    """Return the field at z (mm) over that at the centre."""
    field = np.array(settings.field)
    relative: Float64 = np.interp(np.abs(z), settings.field_z, field / field[0])
    return relative


def fit_tracks(points: Points, begin: Int64, settings: FitSettings) -> Fits:
    """Fit tracks: track t has the points ``begin[t]`` to ``begin[t + 1]``, outwards, three or more."""
    circle = circles(points, begin)
    seen = _measure(points, begin, circle, settings)
    return _Filter(seen, begin, circle, settings).run()


@dataclass(frozen=True, eq=False)
class _Measured:
    """The hits of tracks against their reference, each ``[H]``.

    ``u`` and ``v`` are the distances (mm) across and along z, with variances; ``kick`` is the variance
    of the angle by which a layer scatters. ``cot`` ``[T]`` is the slope of the reference.
    """

    s: Float64
    u: Float64
    v: Float64
    z: Float64
    u_variance: Float64
    v_variance: Float64
    kick: Float64
    field: Float64
    cot: Float64


def _measure(points: Points, begin: Int64, circle: Circles, settings: FitSettings) -> _Measured:
    first, last = begin[:-1], begin[1:] - 1
    track = np.repeat(np.arange(len(first)), last - first + 1)
    at = circle.project(track, points.x, points.y)
    run = at.s[last] - at.s[first]
    slope = (points.z[last] - points.z[first]) / np.where(np.abs(run) > 1e-6, run, 1e-6)
    cot = slope[track]
    # Between the track and the radius through the hit, in the transverse plane.
    r = np.maximum(length(points.x, points.y), STRAIGHT)
    cos = (points.x * at.cos + points.y * at.sin) / r
    sin = (points.y * at.cos - points.x * at.sin) / r
    across, along = points.across**2, points.along**2
    # A disc measures r where a barrel measures z.
    on_disc = cot * cot * (along * cos * cos + across * sin * sin)
    mean = np.abs(points.field[first] + points.field[(first + last) // 2] + points.field[last]) / 3
    bend = np.maximum(np.abs(circle.curvature), STRAIGHT)
    pt = GEV_PER_T_MM * abs(settings.field[0]) * np.maximum(mean, 0.05) / bend
    slant = np.sqrt(1 + cot * cot)
    p = np.maximum(pt[track] * slant, LEAST_MOMENTUM)
    steep = np.where(points.disc, np.maximum(np.abs(cot), 0.1), np.maximum(np.abs(cos), 0.2))
    kick = (SCATTERING / p) ** 2 * (1 + (PION_MASS / p) ** 2) * points.thickness * slant / steep
    return _Measured(
        s=at.s,
        u=at.u,
        v=points.z - points.z[first][track] - cot * at.s,
        z=points.z,
        u_variance=np.maximum(
            across * cos * cos + np.where(points.disc, along * sin * sin, 0), LEAST_VARIANCE
        ),
        v_variance=np.maximum(
            np.where(points.disc, on_disc, along + cot * cot * across * sin * sin), LEAST_VARIANCE
        ),
        kick=kick,
        field=points.field,
        cot=slope,
    )


class _Filter:
    """The Kalman filter of all tracks at once, a hit of each at a time."""

    def __init__(
        self, seen: _Measured, begin: Int64, circle: Circles, settings: FitSettings
    ) -> None:
        self._seen, self._begin, self._circle, self._settings = seen, begin, circle, settings
        tracks = len(begin) - 1
        across, along = FIRST_VARIANCE
        self._a = np.zeros((3, tracks))  # u, its slope, k at the centre
        self._a[2] = circle.curvature
        self._p = np.zeros((6, tracks))  # their covariance: uu, us, uk, ss, sk, kk
        self._p[0], self._p[3], self._p[5] = across
        self._b = np.zeros((2, tracks))  # z and cot, over the line
        self._q = np.zeros((3, tracks))  # their covariance: zz, zc, cc
        self._q[0], self._q[2] = along
        self._chi2 = np.zeros(tracks)
        self._certain = np.zeros(tracks)  # the logarithms of the weights of what was measured

    def run(self) -> Fits:
        seen, begin, circle = self._seen, self._begin, self._circle
        hits = np.diff(begin)
        longest_first = np.argsort(-hits, kind="stable")
        for step in range(int(hits.max(initial=0))):
            t = longest_first[: np.searchsorted(-hits[longest_first], -step)]
            at = begin[t + 1] - 1 - step
            if step:
                self._move(t, seen.s[at] - seen.s[at + 1], seen.z[at + 1], seen.z[at])
            self._take(t, at)
        every, zero = np.arange(len(hits)), np.zeros(len(hits))
        perigee = circle.project(every, zero, zero)
        z = seen.z[begin[:-1]] + seen.cot * perigee.s
        self._move(every, perigee.s, seen.z[begin[:-1]], z)
        phi = circle.phi + perigee.turn + self._a[1]
        return Fits(
            curvature=self._a[2],
            phi=np.arctan2(np.sin(phi), np.cos(phi)),
            d0=self._a[0] - perigee.u,
            z0=z + self._b[0],
            cot=seen.cot + self._b[1],
            variance=np.stack([self._p[i] for i in (5, 3, 0)] + [self._q[0], self._q[2]], axis=1),
            chi2=self._chi2,
            deviance=self._chi2 - self._certain,
            hits=hits,
        )

    def _move(self, t: Int64, h: Float64, z_from: Float64, z_to: Float64) -> None:
        """Carry tracks by arcs of length h along their circles, in the field between two z (Simpson)."""
        start, end = _field(z_from, self._settings), _field(z_to, self._settings)
        middle = _field(0.5 * (z_from + z_to), self._settings)
        once = h * (start + 4 * middle + end) / 6
        twice = h * h * (start + 2 * middle) / 6
        turn = self._circle.curvature[t] * h
        c, d = 1 - 0.5 * turn * turn, h * (1 - turn * turn / 6)
        e = -turn * self._circle.curvature[t] * (1 - turn * turn / 6)
        u, slope, k = self._a[:, t]
        self._a[0, t] = c * u + d * slope + twice * k - 0.5 * h * turn
        self._a[1, t] = e * u + c * slope + once * k - turn
        uu, us, uk, ss, sk, kk = self._p[:, t]
        to_uk, to_sk = c * uk + d * sk + twice * kk, e * uk + c * sk + once * kk
        from_u, from_s = c * uu + d * us + twice * uk, c * us + d * ss + twice * sk
        self._p[:, t] = (
            c * from_u + d * from_s + twice * to_uk,
            e * from_u + c * from_s + once * to_uk,
            to_uk,
            e * (e * uu + c * us + once * uk) + c * (e * us + c * ss + once * sk) + once * to_sk,
            to_sk,
            kk,
        )
        zz, zc, cc = self._q[:, t]
        self._b[0, t] += h * self._b[1, t]
        self._q[0, t] = zz + h * (2 * zc + h * cc)
        self._q[1, t] = zc + h * cc

    def _take(self, t: Int64, at: Int64) -> None:
        """Take a hit of each of these tracks, then let its layer scatter."""
        seen = self._seen
        uu, us, uk, ss, sk, kk = self._p[:, t]
        variance = seen.u_variance[at]
        weight = 1 / (uu + variance)
        off = seen.u[at] - self._a[0, t]
        self._a[:, t] += np.stack([uu, us, uk]) * (weight * off)
        slant = 1 + seen.cot[t] ** 2
        self._p[:, t] = (
            uu * variance * weight,
            us * variance * weight,
            uk * variance * weight,
            ss - us * us * weight + seen.kick[at] * slant,
            sk - us * uk * weight,
            kk - uk * uk * weight,
        )
        self._chi2[t] += off * off * weight
        self._certain[t] += np.log(np.maximum(weight, LEAST_WEIGHT))
        zz, zc, cc = self._q[:, t]
        variance = seen.v_variance[at]
        weight = 1 / (zz + variance)
        off = seen.v[at] - self._b[0, t]
        self._b[:, t] += np.stack([zz, zc]) * (weight * off)
        self._q[:, t] = (
            zz * variance * weight,
            zc * variance * weight,
            cc - zc * zc * weight + seen.kick[at] * slant * slant,
        )
        self._chi2[t] += off * off * weight
        self._certain[t] += np.log(np.maximum(weight, LEAST_WEIGHT))
