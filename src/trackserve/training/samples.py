"""Events made ready for training: features in canonical order, and the edges that are true.

N  hits    F  features    E  edges    M  true edges
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.matching import NO_PARTICLE, particle_rows
from trackserve.evaluate.metrics import HEADLINE
from trackserve.evaluate.stages import true_edges
from trackserve.pipeline.features import canonical_order, cylindrical, hit_features

if TYPE_CHECKING:
    from trackserve.event import Bool, Event, Float32, Int64
    from trackserve.pipeline.features import FeatureColumns

SAME_PARTICLE = -1
"""Row of an edge that joins two hits of one particle that are not consecutive."""
WRONG = -2
"""Row of an edge that joins two hits that no one particle made."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One event for training.

    ``features`` is ``[N, F]`` in canonical order, ``particle`` ``[N]`` the row of each hit's
    particle (-1 for noise); ``edges`` ``[2, M]`` are the true edges of all particles, sorted, with
    their ``length`` ``[M]`` (mm) in r and z and whether their particle is a ``target``.
    """

    features: Float32
    particle: Int64
    edges: Int64
    length: Float32
    target: Bool

    def label(self, edges: Int64) -> Int64:
        """Return for each edge ``[E]`` its row among the true edges, SAME_PARTICLE or WRONG."""
        hits = len(self.features)
        known = self.edges[0] * hits + self.edges[1]
        name = edges[0] * hits + edges[1]
        row = np.searchsorted(known, name)
        row[row == len(known)] = 0
        true = known[row] == name if len(known) else np.zeros(len(name), np.bool_)
        owner = self.particle[edges]
        same = (owner[0] == owner[1]) & (owner[0] != NO_PARTICLE)
        return np.where(true, row, np.where(same, SAME_PARTICLE, WRONG))

    def weight(self, length: float) -> Float32:
        """Return what each true edge ``[M]`` counts: 1, and more with the square of its ``length`` (mm).

        Long edges are few, and a track that lacks one falls in two.
        """
        weight: Float32 = 1 + np.square(self.length / np.float32(length))
        return weight

    def part(self, rows: Int64) -> Sample:
        """Return the sample of these rows alone, in increasing order, with the edges among them."""
        place = np.full(len(self.features), -1)
        place[rows] = np.arange(len(rows))
        edges = place[self.edges]
        whole = (edges >= 0).all(axis=0)
        return Sample(
            features=self.features[rows],
            particle=self.particle[rows],
            edges=edges[:, whole],
            length=self.length[whole],
            target=self.target[whole],
        )


def make_sample(event: Event, columns: FeatureColumns, *, min_pt: float) -> Sample:
    """Return the sample of an event; targets are charged primaries above ``min_pt`` (GeV).

    A little below the 1 GeV of the targets that results are judged by, so that the networks' own
    threshold doesn't fall on it. Raises :class:`InputError` for an event without truth.
    """
    if event.truth is None:
        message = f"event {event.event_id} has no truth; training needs particles and truth files"
        raise InputError(message)
    features = hit_features(event.hits, columns)
    order = canonical_order(features, columns)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    particles = event.truth.particles
    owner = particle_rows(event.truth)
    edges = np.sort(
        place[true_edges(event.hits, event.truth, np.ones(len(particles), bool))], axis=0
    )
    edges = edges[:, np.lexsort((edges[1], edges[0]))]
    particle = owner[order]
    hits = np.bincount(owner[owner != NO_PARTICLE], minlength=len(particles))
    target = replace(HEADLINE, min_pt=min_pt).select(event.truth, hits)
    of_edge = particle[edges[0]]
    r, _, z = cylindrical(features[order], columns)
    return Sample(
        features=features[order],
        particle=particle,
        edges=edges,
        length=np.hypot(r[edges[1]] - r[edges[0]], z[edges[1]] - z[edges[0]]),
        target=target[of_edge],
    )


def turned(features: Float32, columns: FeatureColumns, generator: np.random.Generator) -> Float32:
    """Return the features of the event turned about the beam line and mirrored, at random.

    The detector looks the same along both directions of the beam line and, up to the pattern of its
    modules, from every azimuth; mirroring the azimuth exchanges the charges.
    """
    phi, z = columns.columns.index("phi"), columns.columns.index("z")
    half_turn = np.pi / columns.scales[phi]
    features = features.copy()
    angle = features[:, phi] * generator.choice([-1.0, 1.0]) + generator.uniform(0, 2 * half_turn)
    features[:, phi] = np.remainder(angle + half_turn, 2 * half_turn) - half_turn
    features[:, z] *= generator.choice([-1.0, 1.0])
    return features


def weighted_quantile(values: Float32, weight: Float32, share: float) -> float:
    """Return the value below which this share of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weight[order], dtype=np.float64)
    place = np.searchsorted(below, share * below[-1])
    return float(values[order[min(place, len(values) - 1)]])
