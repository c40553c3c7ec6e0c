"""The magnetic field of the TrackML detector: a solenoid of 2 T, 5.3 m long, 1.23 m in radius.

In TrackML's events truth momenta turn as in a field that falls from 2 T at the centre to 1.5 T at
|z| = 1.4 m and to nothing at 2.8 m. That is less than the component along the beam, because the
field lines spread: a particle from the origin also moves along the radial component, and turns by
Bz - (z / r) Br. ``turning_field`` is that number. One thin coil of the size of ATLAS' central
solenoid has it everywhere within 0.05 T (0.1 T beyond 2 m), so its field is used as it is:
without divergence, and with the right fall-off outside the tracker.

Symbols: a radius, l half length of the coil; rho distance of a point from a line of the coil that
is parallel to its axis. Lengths in mm, fields in T, numpy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FIELD_AT_CENTRE = 2.0
COIL_RADIUS = 1230.0
COIL_HALF_LENGTH = 2650.0

_LINES = 256
"""The integral around the coil is a sum over this many lines in half a turn: exact to 1e-6 up to
r = 1.15 m, where the tracker ends."""
_POINTS_AT_ONCE = 4096


def solenoid_field(r: ArrayLike, z: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the field (Br, Bz) in T at cylindrical ``r``, ``z`` in mm, arrays of one shape.

    The field of a thin cylindrical sheet of current, integrated in closed form along z and
    numerically around the axis (Callaghan and Maslen, NASA TN D-465, 1960). Valid inside the coil
    and beyond its ends; ``z`` may be of either sign.
    """
    radius, along = np.broadcast_arrays(np.asarray(r, np.float64), np.asarray(z, np.float64))
    flat_r, flat_z = radius.ravel(), along.ravel()
    br, bz = np.empty_like(flat_r), np.empty_like(flat_z)
    for start in range(0, len(flat_r), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        br[part], bz[part] = _sheet(flat_r[part, None], flat_z[part, None])
    return br.reshape(radius.shape), bz.reshape(radius.shape)


def turning_field(r: ArrayLike, z: ArrayLike) -> NDArray[Any]:
    """Return the field in T that turns a straight particle from the origin in the transverse plane.

    At ``r`` > 0, ``z`` in mm: Bz - (z / r) Br. It is what the turn of a momentum between two hits
    measures, and changes sign near the end of the coil.
    """
    br, bz = solenoid_field(r, z)
    turning: NDArray[Any] = bz - np.asarray(z) / np.asarray(r) * br
    return turning


def _sheet(r: NDArray[Any], z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    a, half = COIL_RADIUS, COIL_HALF_LENGTH
    cosine = np.cos((np.arange(_LINES) + 0.5) * np.pi / _LINES)
    rho2 = a * a + r * r - 2 * a * r * cosine
    to_low, to_high = z + half, z - half
    low, high = np.sqrt(rho2 + to_low**2), np.sqrt(rho2 + to_high**2)
    # On the axis and at the centre the mean below is 2 l / sqrt(a^2 + l^2).
    scale = FIELD_AT_CENTRE * np.hypot(a, half) / (2 * half)
    br = scale * (a * cosine * (1 / high - 1 / low)).mean(axis=1)
    bz = scale * (a * (a - r * cosine) / rho2 * (to_low / low - to_high / high)).mean(axis=1)
    return br, bz
