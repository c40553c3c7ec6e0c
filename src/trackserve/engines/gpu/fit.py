"""A fast fit of each track on the device, as pipeline/fit.py; shapes and names are as there.

torch works out what the filter takes of each hit; the filter itself is one kernel, a lane a track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.kernels.fit import fit_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.pipeline.fit import (
    FIRST_VARIANCE,
    GEV_PER_T_MM,
    LEAST_MOMENTUM,
    LEAST_VARIANCE,
    MOST_CURVATURE,
    PION_MASS,
    SCATTERING,
    STRAIGHT,
)

if TYPE_CHECKING:
    from trackserve.pipeline.fit import FitSettings

TRACKS = rows(32)
"""Tracks of a program."""
WARPS = 1
FIRST = dict(
    zip(
        ("ACROSS_U", "ACROSS_SLOPE", "ACROSS_K", "ALONG_Z", "ALONG_COT"),
        (*FIRST_VARIANCE[0], *FIRST_VARIANCE[1]),
        strict=True,
    )
)
"""The kernel's variances before the first hit."""


class Detector:
    """The detector as the fit sees it, on the device: field (relative to its centre) and regions."""

    def __init__(self, settings: FitSettings, device: str) -> None:
        def put(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        self.centre = settings.field[0]
        """The field at the centre, T."""
        self._z, self._field = put(settings.field_z), put(settings.field) / self.centre
        self._r = put([each.r for each in settings.regions[:-1]])
        self._half = put([each.z for each in settings.regions])
        self._numbers = put([[each.barrel, each.disc] for each in settings.regions])

    def field(self, z: Tensor) -> Tensor:
        """Return the field at z (mm) over that at the centre, as numpy interpolates."""
        z = z.abs()
        if len(self._z) == 1:
            return torch.ones_like(z)
        at = (torch.searchsorted(self._z, z, right=True) - 1).clamp(0, len(self._z) - 2)
        low, high = self._z[at], self._z[at + 1]
        slope = (self._field[at + 1] - self._field[at]) / (high - low)
        inside = slope * (z - low) + self._field[at]
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
    """A circle for each track ``[T]``; see :class:`trackserve.pipeline.fit.Circles`."""

    x: Tensor
    y: Tensor
    phi: Tensor
    curvature: Tensor

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
    sides = _length(bx - ax, by - ay) * _length(cx - bx, cy - by) * _length(cx - ax, cy - ay)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    k = (2 * area / sides.clamp(min=STRAIGHT)).clamp(-MOST_CURVATURE, MOST_CURVATURE)
    half = torch.asin((0.5 * k * _length(cx - ax, cy - ay)).clamp(-1, 1))
    return Circles(ax, ay, torch.atan2(cy - ay, cx - ax) - half, k)


def fit_tracks(points: Points, begin: Tensor, detector: Detector) -> Fits:
    """Fit tracks: track t has the points ``begin[t]`` to ``begin[t + 1]``, outwards."""
    circle, first = circles(points, begin), begin[:-1]
    hits, at, cot = _measure(points, begin, circle, detector)
    every, zero = torch.arange(len(first), device=begin.device), torch.zeros_like(cot)
    perigee = circle.project(every, zero, zero)
    z = points.z[first] + cot * perigee.s
    way = _way(perigee.s, points.z[first], z, detector)
    tracks = torch.stack([circle.curvature, cot, *way])
    found = torch.empty(11, len(first), dtype=torch.float64, device=begin.device)
    if len(first):
        fit_kernel[blocks(len(first), TRACKS)](
            hits,
            len(at),
            tracks,
            len(first),
            begin,
            found,
            **FIRST,
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
        hits=begin.diff(),
    )


def _measure(
    points: Points, begin: Tensor, circle: Circles, detector: Detector
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the kernel's rows of hits ``[8, H]``, their arc lengths ``[H]`` and the slope ``[T]``."""
    first, last = begin[:-1], begin[1:] - 1
    track = torch.repeat_interleave(last - first + 1, output_size=len(points.x))
    at = circle.project(track, points.x, points.y)
    run = at.s[last] - at.s[first]
    slope = (points.z[last] - points.z[first]) / torch.where(run.abs() > 1e-6, run, 1e-6)
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
    v = points.z - points.z[first][track] - cot * at.s
    # From the hit outside; what the outermost of a track has there is not used.
    outside = torch.arange(1, len(at.s) + 1, device=begin.device).clamp(max=max(0, len(at.s) - 1))
    way = _way(at.s - at.s[outside], points.z[outside], points.z, detector)
    hits = torch.stack(
        [
            at.u,
            v,
            (across * cos * cos + on_sin).clamp(min=LEAST_VARIANCE),
            torch.where(points.disc, on_disc, in_barrel).clamp(min=LEAST_VARIANCE),
            kick,
            *way,
        ]
    )
    return hits, at.s, slope


def _way(h: Tensor, z_from: Tensor, z_to: Tensor, detector: Detector) -> tuple[Tensor, ...]:
    """Return arcs of length h and the field along them between two z, once and twice (Simpson)."""
    start, end = detector.field(z_from), detector.field(z_to)
    middle = detector.field(0.5 * (z_from + z_to))
    return h, h * (start + 4 * middle + end) / 6, h * h * (start + 2 * middle) / 6


def _length(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y)
