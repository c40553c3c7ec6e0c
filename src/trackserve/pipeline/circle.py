"""A circle through three hits of a track: what its fit and its search for further hits start from.

T  tracks    H  hits on tracks, those of a track one behind the other, outwards
s  arc length, mm    u  distance to the left, mm    k  signed curvature, 1/mm; positive turns to the left
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trackserve.event import Float64, Int64
    from trackserve.pipeline.fit import Points

MOST_CURVATURE = 1 / 30
"""No track turns more tightly, 1/mm."""
STRAIGHT = 1e-9
"""Below this curvature, 1/mm, a circle is taken as a line."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Where circles come closest to points: arc length and distance to the left (mm), turn (rad), direction."""

    s: Float64
    u: Float64
    turn: Float64
    cos: Float64
    sin: Float64


@dataclass(frozen=True, eq=False)
class Circles:
    """A circle for each track ``[T]``: a point on it (mm), the direction there (rad), its curvature (1/mm)."""

    x: Float64
    y: Float64
    phi: Float64
    curvature: Float64

    def offset(self, track: Int64, x: Float64, y: Float64) -> tuple[Float64, Float64, Float64]:
        """Return how far points (mm) are to the left of these tracks' circles, and ahead, left of the start."""
        cos, sin, k = np.cos(self.phi)[track], np.sin(self.phi)[track], self.curvature[track]
        dx, dy = x - self.x[track], y - self.y[track]
        ahead, left = dx * cos + dy * sin, dy * cos - dx * sin
        d = left - 0.5 * k * (ahead * ahead + left * left)
        return 2 * d / (1 + np.sqrt(np.maximum(1 - 2 * k * d, 0))), ahead, left

    def at(self, track: Int64, s: Float64) -> tuple[Float64, Float64]:
        """Return the places (mm) at these arc lengths of tracks' circles."""
        half = 0.5 * self.curvature[track] * s
        chord = s * np.sinc(half / np.pi)
        angle = self.phi[track] + half
        return self.x[track] + chord * np.cos(angle), self.y[track] + chord * np.sin(angle)

    def project(self, track: Int64, x: Float64, y: Float64) -> Projection:
        """Return where these tracks' circles come closest to points (mm)."""
        u, ahead, left = self.offset(track, x, y)
        k = self.curvature[track]
        along, across = k * ahead, 1 - k * left
        turn = np.arctan2(along, across)
        bent = np.abs(k) > STRAIGHT
        size = np.maximum(length(along, across), STRAIGHT)
        cos, sin = np.cos(self.phi)[track], np.sin(self.phi)[track]
        return Projection(
            s=np.where(bent, turn / np.where(bent, k, 1), ahead),
            u=u,
            turn=turn,
            cos=(cos * across - sin * along) / size,
            sin=(sin * across + cos * along) / size,
        )


def circles(points: Points, begin: Int64) -> Circles:
    """Return the circle through the first, the middle and the last hit of each track, from the first on."""
    first, last = begin[:-1], begin[1:] - 1
    middle = (first + last) // 2
    ax, bx, cx = (points.x[rows] for rows in (first, middle, last))
    ay, by, cy = (points.y[rows] for rows in (first, middle, last))
    sides = length(bx - ax, by - ay) * length(cx - bx, cy - by) * length(cx - ax, cy - ay)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    k = np.clip(2 * area / np.maximum(sides, STRAIGHT), -MOST_CURVATURE, MOST_CURVATURE)
    half = np.arcsin(np.clip(0.5 * k * length(cx - ax, cy - ay), -1, 1))
    return Circles(ax, ay, np.arctan2(cy - ay, cx - ax) - half, k)


def length(x: Float64, y: Float64) -> Float64:
    """Return the length of each vector."""
    found: Float64 = np.sqrt(x * x + y * y)
    return found
