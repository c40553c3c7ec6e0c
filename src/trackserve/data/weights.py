"""How much each hit counts in the TrackML score.

Amrouche et al., "The Tracking Machine Learning challenge: Accuracy phase", arXiv:1904.06778,
section 4; the numbers are those of the challenge's own library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.event import NOISE

if TYPE_CHECKING:
    from trackserve.event import Float64, Int64, Particles

_ORDER = (10.0, 8.0, 6.0, 5.0, 3.0, 3.0, 3.0, 5.0, 6.0)
"""Relative weight along a track, from its first hit to its last."""
_FEWEST_HITS, _MOST_HITS = 4, 20
_PT = (0.05, 0.5, 3.0)
_PT_WEIGHT = (0.2, 0.2, 1.0)


def hit_weights(particle_id: Int64, z: Float64, particles: Particles) -> Float64:
    """Return the weight of each hit ``[N]``: they sum to 1 over the event, noise weighs 0.

    ``z`` is where the particle crossed the module, mm: hits are ordered by their distance in z from
    where the particle was produced. A particle with fewer than 4 hits weighs 0.
    """
    weight = np.zeros(len(particle_id))
    hit = np.flatnonzero(particle_id != NOISE)
    by_id = np.argsort(particles.particle_id)
    row = by_id[np.searchsorted(particles.particle_id, particle_id[hit], sorter=by_id)]
    along = np.lexsort((np.abs(z[hit] - particles.vz[row]), row))
    hit, row = hit[along], row[along]
    _, start, counts = np.unique(row, return_index=True, return_counts=True)
    rank = np.arange(len(hit)) - np.repeat(start, counts)
    table = _order_weights()
    hits_of_particle = np.minimum(np.repeat(counts, counts), _MOST_HITS)
    weight[hit] = table[hits_of_particle, np.minimum(rank, _MOST_HITS)] * np.interp(
        particles.pt[row], _PT, _PT_WEIGHT, left=0.0
    )
    total = weight.sum()
    return weight / total if total > 0 else weight


def _order_weights() -> Float64:
    """Return the weight of the i-th of n hits, ``[n, i]``; 0 beyond the 20th."""
    table = np.zeros((_MOST_HITS + 1, _MOST_HITS + 1))
    for hits in range(_FEWEST_HITS, _MOST_HITS + 1):
        support = np.linspace(0, hits - 1, len(_ORDER))
        weights = np.interp(np.arange(hits), support, _ORDER)
        table[hits, :hits] = weights / weights.sum()
    return table
