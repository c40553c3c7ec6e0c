"""Which track found which particle: the contingency of tracks and particles in one event.

    N   hits        T   tracks of at least 3 hits        P   particles

A particle is named by its row in the table of particles, a track by its place among the labels in
rising order; -1 stands for none. Noise is no particle: it adds to the size of a track, never to the
hits that the track shares with a particle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import InputError
from trackserve.event import NO_TRACK, NOISE, Bool, Float64, Int64

if TYPE_CHECKING:
    from trackserve.event import Truth

MIN_TRACK_HITS = 3
"""What has fewer hits doesn't count as a track."""
NO_PARTICLE = -1
"""Row of the particle of a noise hit."""


@dataclass(frozen=True, eq=False)
class Matches:
    """For every track its majority particle, for every particle its best track.

    ``track_hits`` ``[T]`` counts the hits of a track, ``track_particle`` ``[T]`` is the particle
    that made most of them, ``track_shared`` ``[T]`` how many it made, ``track_weight`` ``[T]`` the
    sum of their TrackML weights, ``track_particle_hits`` ``[T]`` how many that particle made in
    all; for a track of noise alone these are -1, 0, 0 and 0. ``particle_hits`` ``[P]`` counts the
    hits of a particle, ``particle_shared`` ``[P]`` how many are on the track that has most of them.
    """

    track_hits: Int64
    track_particle: Int64
    track_shared: Int64
    track_weight: Float64
    track_particle_hits: Int64
    particle_hits: Int64
    particle_shared: Int64

    @property
    def track_pure(self) -> Bool:
        """Whether more than half of a track's hits come from its majority particle ``[T]``."""
        return 2 * self.track_shared > self.track_hits

    @property
    def track_matched(self) -> Bool:
        """Whether a track is matched to its majority particle by double majority ``[T]``.

        More than half of the track's hits come from the particle, and more than half of the
        particle's hits are on the track.
        """
        return self.track_pure & (2 * self.track_shared > self.track_particle_hits)

    @property
    def particle_matched(self) -> Bool:
        """Whether a particle has a track by double majority ``[P]``; it can't have two."""
        return self._has_track(self.track_matched)

    @property
    def particle_single_majority(self) -> Bool:
        """Whether more than half of some track's hits come from the particle ``[P]``."""
        return self._has_track(self.track_pure)

    @property
    def particle_perfect(self) -> Bool:
        """Whether a track has all hits of the particle and no other ``[P]``."""
        only_its_hits = self.track_shared == self.track_hits
        all_its_hits = self.track_shared == self.track_particle_hits
        return self._has_track(only_its_hits & all_its_hits)

    @property
    def duplicates(self) -> Int64:
        """How many further tracks are matched to a particle that has one already ``[P]``.

        Matched here means that more than half of the track's hits come from the particle: by double
        majority a second match is impossible, so a particle in three pieces has two duplicates.
        """
        pure = self.track_particle[self.track_pure]
        return np.maximum(np.bincount(pure, minlength=len(self.particle_hits)) - 1, 0)

    @property
    def track_duplicate(self) -> Bool:
        """Which tracks are the further ones of :attr:`duplicates` ``[T]``: all but the one with most hits."""
        order = np.lexsort((-self.track_shared, self.track_particle, ~self.track_pure))
        pure = order[: int(self.track_pure.sum())]
        again = np.zeros(len(self.track_hits), np.bool_)
        particle = self.track_particle[pure]
        again[pure[1:]] = particle[1:] == particle[:-1]
        return again

    @property
    def trackml_score(self) -> float:
        """The score of the TrackML challenge: the weights of the hits that matched tracks share.

        Each double-majority track gives the sum of the weights of the hits that it has in common
        with its particle; others give nothing. The weights of an event sum to 1, those of noise and
        of particles with fewer than four hits are 0. Source: Amrouche et al., arXiv:1904.06778.
        """
        return float(self.track_weight[self.track_matched].sum())

    def _has_track(self, tracks: Bool) -> Bool:
        found = np.zeros(len(self.particle_hits), np.bool_)
        found[self.track_particle[tracks]] = True
        return found


def particle_rows(truth: Truth) -> Int64:
    """Return the row of each hit's particle in the table of particles ``[N]``; -1 for noise."""
    ids = truth.particles.particle_id
    rows = np.full(len(truth), NO_PARTICLE, np.int64)
    made = truth.particle_id != NOISE
    order = np.argsort(ids)
    rows[made] = order[np.searchsorted(ids, truth.particle_id[made], sorter=order)]
    return rows


def match(labels: Int64, truth: Truth) -> Matches:
    """Compare the tracks of an event with its particles.

    ``labels`` ``[N]`` holds the number of each hit's track (any non-negative numbers), -1 for none.
    Tracks of fewer than three hits are taken as none. Raises InputError where ``labels`` and
    ``truth`` differ in length.
    """
    if len(labels) != len(truth):
        message = f"{len(labels)} labels for {len(truth)} hits; expected one label for each hit"
        raise InputError(message)
    particle = particle_rows(truth)
    particles = len(truth.particles)

    numbers, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    proper = (numbers > NO_TRACK) & (sizes >= MIN_TRACK_HITS)
    track_hits = sizes[proper]
    tracks = len(track_hits)
    track = (np.cumsum(proper) - 1)[group]

    common = np.flatnonzero(proper[group] & (particle != NO_PARTICLE))
    pairs, pair, shared = np.unique(
        track[common] * particles + particle[common], return_inverse=True, return_counts=True
    )
    weight = np.bincount(pair, truth.weight[common], minlength=len(pairs))
    pair_track, pair_particle = np.divmod(pairs, max(particles, 1))

    particle_hits = np.bincount(particle[particle != NO_PARTICLE], minlength=particles)
    # Written in the order of rising overlap: what is written last stays.
    rising = np.argsort(shared, kind="stable")
    owner = pair_track[rising]
    track_particle = np.full(tracks, NO_PARTICLE, np.int64)
    track_particle[owner] = pair_particle[rising]
    track_shared = np.zeros(tracks, np.int64)
    track_shared[owner] = shared[rising]
    track_weight = np.zeros(tracks)
    track_weight[owner] = weight[rising]
    track_particle_hits = np.zeros(tracks, np.int64)
    track_particle_hits[owner] = particle_hits[pair_particle[rising]]
    particle_shared = np.zeros(particles, np.int64)
    np.maximum.at(particle_shared, pair_particle, shared)
    return Matches(
        track_hits=track_hits,
        track_particle=track_particle,
        track_shared=track_shared,
        track_weight=track_weight,
        track_particle_hits=track_particle_hits,
        particle_hits=particle_hits,
        particle_shared=particle_shared,
    )
