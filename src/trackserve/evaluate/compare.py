"""Two track finders on the same events: what differs, with paired intervals, and which is faster.

Efficiencies are paired particle by particle: only those that one finder alone finds differ. Rates of
tracks and scores are paired event by event, by bootstrap. The definitions are those of an evaluation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.report import Evaluation, add_up, evaluate_event, found_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trackserve.evaluate.intervals import Ratio
    from trackserve.evaluate.metrics import TargetSet
    from trackserve.event import Bool, Event, Float64, Tracks

SIDES = ("A", "B")
RESAMPLES = 2000
COVERED = (15.865, 84.135)
"""Percentiles between which 68.3 % lie."""


@dataclass(frozen=True)
class Side:
    """One of the two finders; ``timed`` unless its tracks come from a file."""

    name: str
    find: Callable[[Event], Tracks]
    timed: bool = True


@dataclass(frozen=True)
class Paired:
    """Targets found by both finders, by ``only_a`` or ``only_b``, of ``total``; adding pools the counts."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    total: int = 0

    def __add__(self, other: Paired) -> Paired:
        return Paired(
            *(
                mine + its
                for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )

    @property
    def difference(self) -> float:
        """The efficiency of B less that of A; nan of no targets."""
        return (self.only_b - self.only_a) / self.total if self.total else np.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 68.3 % interval of the difference of paired proportions.

        Half a particle is added to each of the four cells, so that it is of finite width where all
        agree. Source: A. Agresti, Y. Min, Statist. Med. 24 (2005) 729.
        """
        a, b, total = self.only_a + 0.5, self.only_b + 0.5, self.total + 2
        middle = (b - a) / total
        half = np.sqrt(a + b - (b - a) ** 2 / total) / total
        return min(middle - half, self.difference), max(middle + half, self.difference)


class Estimate(NamedTuple):
    """A difference of B and A with the ends of its 68.3 % interval, nan where one event is all."""

    value: float
    low: float
    high: float


class OnlyOne(NamedTuple):
    """A particle that one finder alone finds, and the sets of targets that it is in."""

    finder: str
    event_id: int
    particle_id: int
    pt: float
    eta: float
    production_radius: float
    hits: int
    sets: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two finders make of the same events.

    ``evaluations`` are those of each event, A's and B's; ``targets`` pairs the particles of each set;
    ``seconds`` ``[events, 2]`` is the wall time that each took for an event, nan where it isn't timed.
    """

    names: tuple[str, str]
    evaluations: tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]
    targets: dict[str, Paired]
    particles: tuple[OnlyOne, ...]
    seconds: Float64

    @cached_property
    def totals(self) -> tuple[Evaluation, Evaluation]:
        """Each finder's evaluation of all events together."""
        a, b = (add_up(each) for each in self.evaluations)
        return a, b

    def rate_difference(self, rate: Callable[[Evaluation], Ratio]) -> Estimate:
        """Return by how much a rate of tracks of B is above that of A, by bootstrap over events."""
        counts = np.array(
            [[[rate(e).passed, rate(e).total] for e in each] for each in self.evaluations]
        )
        return _bootstrap(counts, _difference_of_rates)

    def score_difference(self) -> Estimate:
        """Return by how much the TrackML score of B is above that of A."""
        scores = np.array([[e.scores[0] for e in each] for each in self.evaluations])
        return _bootstrap(
            scores[..., None], lambda x: x[1, ..., 0].mean(-1) - x[0, ..., 0].mean(-1)
        )

    def time_ratio(self) -> Estimate:
        """Return the time of B over that of A, the geometric mean over events."""
        logs = np.log(self.seconds.T)[..., None]
        found = _bootstrap(logs, lambda x: x[1, ..., 0].mean(-1) - x[0, ..., 0].mean(-1))
        return Estimate(*np.exp(found).tolist())


def _difference_of_rates(counts: Float64) -> Float64:
    """Return the pooled rate of B less that of A, of counts ``[2, ..., events, 2]``."""
    summed = counts.sum(axis=-2)
    rates = summed[..., 0] / np.maximum(summed[..., 1], 1)
    difference: Float64 = rates[1] - rates[0]
    return difference


def _bootstrap(values: Float64, statistic: Callable[[Float64], Float64]) -> Estimate:
    """Return a statistic of ``values`` ``[2, events, K]`` with its interval: events are drawn with both sides."""
    events = values.shape[1]
    value = float(statistic(values))
    if events < 2:
        return Estimate(value, np.nan, np.nan)
    drawn = np.random.default_rng(0).integers(0, events, (RESAMPLES, events))
    low, high = np.percentile(statistic(values[:, drawn]), COVERED)
    return Estimate(value, float(low), float(high))


def compare(events: Iterable[Event], a: Side, b: Side, own: Sequence[TargetSet] = ()) -> Comparison:
    """Let two finders find the tracks of the same events, in turn, and judge both.

    Who begins changes from event to event; each finds the first event once before, unmeasured.
    ``own`` are further sets of targets. Raises :class:`InputError` where there is no event, or one has no truth.
    """
    evaluations: tuple[list[Evaluation], list[Evaluation]] = ([], [])
    targets: dict[str, Paired] = {}
    particles: list[OnlyOne] = []
    seconds: list[tuple[float, float]] = []
    for number, event in enumerate(events):
        if not number:
            for side in (a, b):
                if side.timed:
                    side.find(event)
        spent = [np.nan, np.nan]
        found: list[Tracks | None] = [None, None]
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            side = (a, b)[place]
            began = time.perf_counter()
            found[place] = side.find(event)
            spent[place] = time.perf_counter() - began if side.timed else np.nan
        first, second = (tracks for tracks in found if tracks is not None)
        for each, tracks in zip(evaluations, (first, second), strict=True):
            each.append(evaluate_event(event, tracks, own))
        paired, alone = _pair(event, first, second, own)
        targets = {name: targets.get(name, Paired()) + counts for name, counts in paired.items()}
        particles += alone
        seconds.append((spent[0], spent[1]))
    if not seconds:
        message = "there are no events to compare on; expected at least one"
        raise InputError(message)
    return Comparison(
        (a.name, b.name),
        (tuple(evaluations[0]), tuple(evaluations[1])),
        targets,
        tuple(sorted(particles, key=lambda each: -each.pt)),
        np.array(seconds),
    )


def _pair(
    event: Event, a: Tracks, b: Tracks, own: Sequence[TargetSet]
) -> tuple[dict[str, Paired], list[OnlyOne]]:
    """Return the targets of an event as pairs, and the particles that one finder alone finds."""
    by_a, by_b = (found_targets(event, tracks, own) for tracks in (a, b))
    paired = {}
    alone: dict[tuple[str, int], list[str]] = {}
    for name, (chosen, in_a) in by_a.items():
        in_b = by_b[name][1]
        only_a, only_b = chosen & in_a & ~in_b, chosen & in_b & ~in_a
        both = chosen & in_a & in_b
        paired[name] = Paired(*(int(each.sum()) for each in (both, only_a, only_b, chosen)))
        for finder, only in zip(SIDES, (only_a, only_b), strict=True):
            for row in np.flatnonzero(only).tolist():
                alone.setdefault((finder, row), []).append(name)
    return paired, [_described(event, finder, row, sets) for (finder, row), sets in alone.items()]


def _described(event: Event, finder: str, row: int, sets: Sequence[str]) -> OnlyOne:
    assert event.truth is not None
    particles = event.truth.particles
    number = int(particles.particle_id[row])
    made: Bool = event.truth.particle_id == number
    return OnlyOne(
        finder,
        event.event_id,
        number,
        float(particles.pt[row]),
        float(particles.eta[row]),
        float(particles.production_radius[row]),
        int(made.sum()),
        tuple(sets),
    )
