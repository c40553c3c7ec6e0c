"""The conditions under which events are simulated: what differs between data sets, as one table.

``trackml`` is calibrated on events of the TrackML challenge (docs/simulation.md), ``hl-lhc`` is the
same with the pileup and the wide beam spot of the HL-LHC. By volume: 7, 8, 9 pixels, 12, 13, 14 short strips,
16, 17, 18 long strips; of three, the middle one is the barrel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trackserve.event import Float64, Int32

VOLUMES = (7, 8, 9, 12, 13, 14, 16, 17, 18)
ByVolume = tuple[float, float, float, float, float, float, float, float, float]
"""One number for each of ``VOLUMES``."""


@dataclass(frozen=True)
class Conditions:
    """Lengths in mm, momenta in GeV.

    ``beam_spot`` are the standard deviations of where collisions happen, ``pileup`` the mean number
    of collisions beside the hard one. Charged particles are listed from ``listed_pt`` and up to
    ``listed_eta``; those below ``transported_pt`` are not carried through the detector, and stop
    where they fall below it. ``photons`` is the share of photons that may convert.

    ``interaction`` is the thickness of a module's layer in nuclear interaction lengths, by volume,
    and in ``pixel_barrel`` by layer there; ``missed`` the probability that a crossing leaves no
    hit.

    ``noise`` is the share of noise among all hits, ``noise_volumes`` where it is, and
    ``noise_cells`` its mean number of cells a hit.

    ``depth`` is the depth of silicon that gives signal, ``spread_u`` and ``spread_v`` how far charge
    spreads before it is collected, in mm. ``blur_u`` is what the position along u is off beside
    that, a standard deviation in mm.
    """

    beam_spot: tuple[float, float, float]
    pileup: float
    listed_pt: float
    listed_eta: float
    transported_pt: float
    photons: float
    interaction: ByVolume
    pixel_barrel: tuple[float, float, float, float]
    missed: ByVolume
    noise: float
    noise_volumes: ByVolume
    noise_cells: ByVolume
    depth: ByVolume
    spread_u: ByVolume
    spread_v: ByVolume
    blur_u: ByVolume


TRACKML = Conditions(
    beam_spot=(0.015, 0.015, 5.5),
    pileup=143.0,
    listed_pt=0.1,
    listed_eta=4.0,
    transported_pt=0.15,
    photons=0.23,
    interaction=(0.0048, 0.0, 0.0048, 0.012, 0.0115, 0.012, 0.018, 0.012, 0.018),
    pixel_barrel=(0.0055, 0.0060, 0.0085, 0.0085),
    missed=(0.035, 0.012, 0.035, 0.02, 0.01, 0.02, 0.01, 0.01, 0.01),
    noise=0.15,
    noise_volumes=(0.045, 0.099, 0.040, 0.065, 0.297, 0.059, 0.029, 0.321, 0.046),
    noise_cells=(4.5, 7.3, 4.1, 2.4, 2.7, 2.1, 2.7, 2.4, 2.2),
    depth=(0.125, 0.125, 0.125, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25),
    spread_u=(0.012, 0.01, 0.012, 0.043, 0.0, 0.043, 0.18, 0.065, 0.18),
    spread_v=(0.008, 0.01, 0.008, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    blur_u=(0.012, 0.012, 0.007, 0.014, 0.023, 0.016, 0.0, 0.029, 0.0),
)

CONDITIONS = {
    "trackml": TRACKML,
    "hl-lhc": replace(TRACKML, beam_spot=(0.0125, 0.0125, 50.0), pileup=200.0),
}
"""The conditions by name."""


def of_volume(values: ByVolume, volume_id: Int32) -> Float64:
    """Return the value of each volume ``[N]``."""
    table = np.full(max(VOLUMES) + 1, np.nan)
    table[list(VOLUMES)] = values
    found: Float64 = table[volume_id]
    return found
