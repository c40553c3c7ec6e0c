"""Events small enough to judge by hand."""

from __future__ import annotations

import numpy as np

from trackserve.event import Event, Hits, Int64, Particles, Truth


def particles(
    ids: list[int],
    *,
    pt: float | list[float] = 2.0,
    eta: float = 0.5,
    vertex: tuple[float, float, float] = (0.0, 0.0, 0.0),
    charge: float = 1.0,
    primary: bool = True,
) -> Particles:
    """Particles that are targets unless stated otherwise."""
    count = len(ids)
    momentum = np.broadcast_to(np.asarray(pt, np.float64), count).copy()
    return Particles(
        particle_id=np.array(ids, np.int64),
        vx=np.full(count, vertex[0]),
        vy=np.full(count, vertex[1]),
        vz=np.full(count, vertex[2]),
        px=momentum,
        py=np.zeros(count),
        pz=momentum * np.sinh(eta),
        q=np.full(count, charge),
        primary=np.full(count, primary),
    )


def truth_of(hit_particles: list[int], weights: list[float] | None = None, **kind: object) -> Truth:
    """The truth of hits whose particle ids are listed, 0 for noise."""
    ids = sorted(set(hit_particles) - {0})
    made = np.array(hit_particles, np.int64)
    if weights is None:
        hits_of = np.array([hit_particles.count(i) if i else 0 for i in hit_particles])
        important = np.where((made != 0) & (hits_of > 3), 1.0, 0.0)
        weight = important / max(important.sum(), 1)
    else:
        weight = np.array(weights)
    return Truth(made, weight, particles(ids, **kind))  # type: ignore[arg-type]


def event_of(hit_particles: list[int], **kind: object) -> Event:
    """An event whose particles fly along x, each on its own y, one hit every 10 mm."""
    rank: dict[int, int] = {}
    rows = []
    for row, particle in enumerate(hit_particles):
        rank[particle] = rank.get(particle, 0) + 1
        rows.append((10.0 * rank[particle], 50.0 * particle if particle else 7.0 * row + 900, 0.0))
    positions = np.array(rows, np.float32).reshape(-1, 3)
    return Event(1, Hits.from_positions(positions), truth_of(hit_particles, **kind))


def labels(*numbers: int) -> Int64:
    """Labels as an array."""
    return np.array(numbers, np.int64)
