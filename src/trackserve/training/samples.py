"""Events made ready for training: features in canonical order, and the edges that are true.

N  hits    F  features    E  edges    M  true edges
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.evaluate.matching import NO_PARTICLE, particle_rows
from trackserve.evaluate.metrics import HEADLINE, MAX_PRODUCTION_RADIUS
from trackserve.evaluate.stages import true_edges
from trackserve.pipeline.features import canonical_order, cylindrical, hit_features
from trackserve.pipeline.neighbours import passes_cuts
from trackserve.training.events import truth_of

if TYPE_CHECKING:
    from trackserve.event import Bool, Event, Float32, Int64, Truth
    from trackserve.pipeline.features import FeatureColumns
    from trackserve.training.recipe import Recipe, TargetsRecipe

SAME_PARTICLE = -1
"""Row of an edge that joins two hits of one particle that are not consecutive."""
WRONG = -2
"""Row of an edge that joins two hits that no one particle made."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One event for training.

    ``features`` is ``[N, F]`` in canonical order, ``particle`` ``[N]`` the row of each hit's
    particle (-1 for noise); ``edges`` ``[2, M]`` are the true edges of all particles, sorted, with
    their ``length`` ``[M]`` (mm) in r and z, the ``importance`` ``[M]`` of their particle and whether
    they are ``target``.
    """

    features: Float32
    particle: Int64
    edges: Int64
    length: Float32
    importance: Float32
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
        """Return what each true edge ``[M]`` counts: its importance, more with the square of ``length`` (mm).

        Long edges are few, and a track that lacks one falls in two.
        """
        weight: Float32 = self.importance * (1 + np.square(self.length / np.float32(length)))
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
            importance=self.importance[whole],
            target=self.target[whole],
        )


def make_sample(event: Event, recipe: Recipe) -> Sample:
    """Return the sample of an event; targets are edges of the recipe's particles that pass its cuts.

    An edge that the doublet cuts drop can't be found, and would only teach what is of no use. Raises :class:`InputError` for an event without truth.
    """
    truth = truth_of(event)
    columns = recipe.features
    features = hit_features(event.hits, columns)
    order = canonical_order(features, columns)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    particles = truth.particles
    owner = particle_rows(truth)
    edges = np.sort(place[true_edges(event.hits, truth, np.ones(len(particles), bool))], axis=0)
    edges = edges[:, np.lexsort((edges[1], edges[0]))]
    particle = owner[order]
    hits = np.bincount(owner[owner != NO_PARTICLE], minlength=len(particles))
    radius = recipe.targets.max_radius
    wanted = replace(
        HEADLINE,
        min_pt=recipe.min_pt,
        max_radius=radius,
        primary=radius <= MAX_PRODUCTION_RADIUS,
    ).select(truth, hits)
    importance = _importance(truth, hits, recipe.targets)
    of_edge = particle[edges[0]]
    position = cylindrical(features[order], columns)
    r, _, z = position
    return Sample(
        features=features[order],
        particle=particle,
        edges=edges,
        length=np.hypot(r[edges[1]] - r[edges[0]], z[edges[1]] - z[edges[0]]),
        importance=importance[of_edge],
        target=wanted[of_edge] & passes_cuts(position, edges[0], edges[1], recipe.doublet_cuts),
    )


def _importance(truth: Truth, hits: Int64, targets: TargetsRecipe) -> Float32:
    """Return what an edge of each particle counts ``[P]``, given how many hits each made ``[P]``."""
    particles = truth.particles
    importance = np.ones(len(particles), np.float32)
    importance[particles.pt > targets.hard_pt] *= targets.hard_weight
    importance[particles.production_radius > MAX_PRODUCTION_RADIUS] *= targets.displaced_weight
    importance[hits <= targets.short_hits] *= targets.short_weight
    return importance


def varied(features: Float32, recipe: Recipe, generator: np.random.Generator) -> Float32:
    """Return the features of an event as another might have had them: its beam spot moved, turned, mirrored.

    The beam spot moves across the beam line by ``recipe.beam_spot`` (mm, one standard deviation along x and y).
    """
    columns = recipe.features
    if recipe.beam_spot:
        r, phi, _ = cylindrical(features, columns)
        dx, dy = generator.normal(0, recipe.beam_spot, 2)
        x, y = r * np.cos(phi) + dx, r * np.sin(phi) + dy
        features = features.copy()
        for name, moved in (("r", np.hypot(x, y)), ("phi", np.arctan2(y, x))):
            column = columns.columns.index(name)
            features[:, column] = moved / columns.scales[column]
    return turned(features, columns, generator)


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
