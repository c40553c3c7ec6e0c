"""A fast fit of each track on the device, as pipeline/fit.py; shapes and names are as there.

torch works out what the filter takes of each hit; the filter itself is one kernel, a lane a track. Each
operation of torch costs the host the same however short its list, so lists that need the same are worked on as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.fit import fit_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.pipeline.circle import MOST_CURVATURE, STRAIGHT
from trackserve.pipeline.fit import (
    FIRST_VARIANCE,
    GEV_PER_T_MM,
    LEAST_MOMENTUM,
    LEAST_VARIANCE,
    LEAST_WEIGHT,
    PION_MASS,
    SCATTERING,
)

if TYPE_CHECKING:
    from trackserve.pipeline.fit import FitSettings

TRACKS = rows(32)
"""Tracks of a program."""
WARPS = 1
NUMBERS = dict(
    zip(
        ("ACROSS_U", "ACROSS_SLOPE", "ACROSS_K", "ALONG_Z", "ALONG_COT", "LEAST_WEIGHT"),
        (*FIRST_VARIANCE[0], *FIRST_VARIANCE[1], LEAST_WEIGHT),
        strict=True,
    )
)
"""The kernel's numbers: variances before the first hit, and the least weight of a measurement."""


class Detector:
    """The detector as the fit sees it, on the device: field (relative to its centre) and regions."""

    def __init__(self, settings: FitSettings, device: str) -> None:
        def put(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        self.centre = settings.field[0]
        """The field at the centre, T."""
        self._z, self._field = put(settings.field_z), put(settings.field) / self.centre
        self._slope = self._field.diff() / self._z.diff()
        self._r = put([each.r for each in settings.regions[:-1]])
        self._half = put([each.z for each in settings.regions])
        self._numbers = put([[each.barrel, each.disc] for each in settings.regions])

    def field(self, z: Tensor) -> Tensor:
        """Return the field at z (mm) over that at the centre, as numpy interpolates."""
        z = z.abs()
        if len(self._z) == 1:
            return torch.ones_like(z)
        at = (torch.searchsorted(self._z, z, right=True) - 1).clamp(0, len(self._z) - 2)
        inside = self._slope[at] * (z - self._z[at]) + self._field[at]
        inside = torch.where(z >= self._z[-1], self._field[-1], inside)
        return torch.where(z <= self._z[0], self._field[0], inside)

    def points(self, position: Tensor) -> Points:
        """Return hits, given by r, phi, z float32 ``[3, N]``, as the fit sees them."""
        r, phi, z = position.double()
        region = torch.searchsorted(self._r, r) if len(self._r) else torch.zeros_like(r).long()
        disc = z.abs() > self._half[region]
        across, along, thickness = self._numbers[region, disc.long()].unbind(1)
        x, y = r * torch.cos(phi), r * torch.sin(phi)
        return Points(x, y, z, disc, across, along, thickness, self.field(z))


@dataclass(frozen=True, eq=False)
class Points:
    """Hits as the fit sees them, each ``[N]``; see :class:`trackserve.pipeline.fit.Points`."""

    x: Tensor
    y: Tensor
    z: Tensor
    disc: Tensor
    across: Tensor
    along: Tensor
    thickness: Tensor
    field: Tensor

    def take(self, at: Tensor) -> Points:
        """Return these rows."""
        return Points(*(values[at] for values in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Fits:
    """What is fitted of each track ``[T]``; see :class:`trackserve.pipeline.fit.Fits`."""

    curvature: Tensor
    phi: Tensor
    d0: Tensor
    z0: Tensor
    cot: Tensor
    variance: Tensor
    chi2: Tensor
    deviance: Tensor
    hits: Tensor

    def take(self, tracks: Tensor) -> Fits:
        """Return these tracks."""
        return Fits(*(values[tracks] for values in vars(self).values()))

    @property
    def reduced_chi2(self) -> Tensor:
        """Return chi2 over the degrees of freedom ``[T]``."""
        return self.chi2 / (2 * self.hits - 5)


@dataclass(frozen=True, eq=False)
class Projection:
    """Where circles come closest to points."""

    s: Tensor
    u: Tensor
    turn: Tensor
    cos: Tensor
    sin: Tensor


@dataclass(frozen=True, eq=False)
class Circles:
    """A circle for each track ``[T]``; see :class:`trackserve.pipeline.circle.Circles`."""

    x: Tensor
    y: Tensor
    phi: Tensor
    curvature: Tensor

    def at(self, track: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places (mm) at these arc lengths of tracks' circles."""
        half = 0.5 * self.curvature[track] * s
        chord = s * torch.sinc(half / math.pi)
        angle = self.phi[track] + half
        return self.x[track] + chord * torch.cos(angle), self.y[track] + chord * torch.sin(angle)

    def project(self, track: Tensor, x: Tensor, y: Tensor) -> Projection:
        """Return where these tracks' circles come closest to points (mm)."""
        cos, sin = torch.cos(self.phi)[track], torch.sin(self.phi)[track]
        k = self.curvature[track]
        dx, dy = x - self.x[track], y - self.y[track]
        ahead, left = dx * cos + dy * sin, dy * cos - dx * sin
        d = left - 0.5 * k * (ahead * ahead + left * left)
        u = 2 * d / (1 + torch.sqrt((1 - 2 * k * d).clamp(min=0)))
        along, across = k * ahead, 1 - k * left
        turn = torch.atan2(along, across)
        bent = k.abs() > STRAIGHT
        size = _length(along, across).clamp(min=STRAIGHT)
        return Projection(
            s=torch.where(bent, turn / torch.where(bent, k, 1), ahead),
            u=u,
            turn=turn,
            cos=(cos * across - sin * along) / size,
            sin=(sin * across + cos * along) / size,
        )


def circles(points: Points, begin: Tensor) -> Circles:
    """Return the circle through the first, the middle and the last hit of each track, from the first on."""
    first, last = begin[:-1], begin[1:] - 1
    middle = (first + last) // 2
    ax, bx, cx = (points.x[at] for at in (first, middle, last))
    ay, by, cy = (points.y[at] for at in (first, middle, last))
    halfway_x, halfway_y, chord_x, chord_y = bx - ax, by - ay, cx - ax, cy - ay
    chord = _length(chord_x, chord_y)
    sides = _length(halfway_x, halfway_y) * _length(cx - bx, cy - by) * chord
    area = halfway_x * chord_y - halfway_y * chord_x
    k = (2 * area / sides.clamp(min=STRAIGHT)).clamp(-MOST_CURVATURE, MOST_CURVATURE)
    half = torch.asin((0.5 * k * chord).clamp(-1, 1))
    return Circles(ax, ay, torch.atan2(chord_y, chord_x) - half, k)


def fit_tracks(
    points: Points, begin: Tensor, detector: Detector, circle: Circles | None = None
) -> Fits:
    """Fit tracks: track t has the points ``begin[t]`` to ``begin[t + 1]``, outwards.

    ``circle`` are their circles, where they are known.
    """
    circle, first, last = circle or circles(points, begin), begin[:-1], begin[1:] - 1
    track = torch.repeat_interleave(last - first + 1, output_size=len(points.x))
    at, perigee = _projections(points, track, circle)
    z_first = points.z[first]
    run = at.s[last] - at.s[first]
    cot = (points.z[last] - z_first) / torch.where(run.abs() > 1e-6, run, 1e-6)
    z = z_first + cot * perigee.s
    ways, way = _ways(points, first, (at.s, perigee.s), (z_first, z), detector)
    hits = torch.stack(
        [*_measure(points, begin, track, at=at, circle=circle, slope=cot, detector=detector), *ways]
    )
    tracks = torch.stack([circle.curvature, cot, *way])
    found = torch.empty(12, len(first), dtype=torch.float64, device=begin.device)
    if len(first):
        fit_kernel[blocks(len(first), TRACKS)](
            hits,
            len(track),
            tracks,
            len(first),
            begin,
            found,
            **NUMBERS,
            B=TRACKS,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    u, slope, curvature, above, steeper, *rest = found
    phi = circle.phi + perigee.turn + slope
    return Fits(
        curvature=curvature,
        phi=torch.atan2(torch.sin(phi), torch.cos(phi)),
        d0=u - perigee.u,
        z0=z + above,
        cot=cot + steeper,
        variance=torch.stack(rest[:5], dim=1),
        chi2=rest[5],
        deviance=rest[6],
        hits=begin.diff(),
    )


def _projections(points: Points, track: Tensor, circle: Circles) -> tuple[Projection, Projection]:
    """Return where the circles come closest to their points ``[H]``, and to the beam line ``[T]``."""
    hits, tracks = len(track), len(circle.x)
    every, zero = torch.arange(tracks, device=track.device), torch.zeros_like(circle.x)
    all_of_them = circle.project(
        torch.cat([track, every]), torch.cat([points.x, zero]), torch.cat([points.y, zero])
    )
    parts = [values.split([hits, tracks]) for values in vars(all_of_them).values()]
    return Projection(*(each[0] for each in parts)), Projection(*(each[1] for each in parts))


def _measure(
    points: Points,
    begin: Tensor,
    track: Tensor,
    *,
    at: Projection,
    circle: Circles,
    slope: Tensor,
    detector: Detector,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the kernel's first five rows of hits, each ``[H]``: u, v, their variances, and the kick."""
    first, last = begin[:-1], begin[1:] - 1
    cot = slope[track]
    r = _length(points.x, points.y).clamp(min=STRAIGHT)
    cos = (points.x * at.cos + points.y * at.sin) / r
    sin = (points.y * at.cos - points.x * at.sin) / r
    across, along = points.across**2, points.along**2
    on_disc = cot * cot * (along * cos * cos + across * sin * sin)
    in_barrel = along + cot * cot * across * sin * sin
    mean = (points.field[first] + points.field[(first + last) // 2] + points.field[last]).abs() / 3
    bend = circle.curvature.abs().clamp(min=STRAIGHT)
    pt = GEV_PER_T_MM * abs(detector.centre) * mean.clamp(min=0.05) / bend
    slant = torch.sqrt(1 + cot * cot)
    p = (pt[track] * slant).clamp(min=LEAST_MOMENTUM)
    steep = torch.where(points.disc, cot.abs().clamp(min=0.1), cos.abs().clamp(min=0.2))
    kick = (SCATTERING / p) ** 2 * (1 + (PION_MASS / p) ** 2) * points.thickness * slant / steep
    on_sin = torch.where(points.disc, along * sin * sin, 0)
    return (
        at.u,
        points.z - points.z[first][track] - cot * at.s,
        (across * cos * cos + on_sin).clamp(min=LEAST_VARIANCE),
        torch.where(points.disc, on_disc, in_barrel).clamp(min=LEAST_VARIANCE),
        kick,
    )


def _ways(
    points: Points,
    first: Tensor,
    s: tuple[Tensor, Tensor],
    z: tuple[Tensor, Tensor],
    detector: Detector,
) -> tuple[Tensor, Tensor]:
    """Return what the field does to each hit on its way from the next one outside, and from the first to the beam line.

    ``s`` are the arc lengths of hits ``[H]`` and of the beam line ``[T]``, ``z`` where the first hit and
    the beam line are ``[T]``. Each way is an arc's length h and the field along it, once and twice
    (Simpson): ``[3, H]`` and ``[3, T]``.
    """
    hits, tracks = len(s[0]), len(first)
    # What the outermost of a track has there is not used.
    outside = torch.arange(1, hits + 1, device=first.device).clamp(max=max(0, hits - 1))
    halfway = 0.5 * (torch.cat([points.z[outside], z[0]]) + torch.cat([points.z, z[1]]))
    field = detector.field(torch.cat([halfway, z[1]]))
    start = points.field[torch.cat([outside, first])]
    middle, end = field[: hits + tracks], torch.cat([points.field, field[hits + tracks :]])
    h = torch.cat([s[0] - s[0][outside], s[1]])
    ways = torch.stack([h, h * (start + 4 * middle + end) / 6, h * h * (start + 2 * middle) / 6])
    return ways[:, :hits], ways[:, hits:]


def _length(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y)
