"""Judging a track finder on many events: one pass, every number, as JSON and as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import Matches, match
from trackserve.evaluate.metrics import (
    DENSITY_RADIUS,
    HARD_PT,
    HEADLINE,
    PIXEL_VOLUMES,
    TARGET_SETS,
    TargetCounts,
    fakes_above,
    layers_of,
    particle_density,
)
from trackserve.evaluate.stages import EdgeCounts, losses, same_particle, true_edges
from trackserve.event import Event, Int64, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trackserve.engines.base import Pipeline
    from trackserve.evaluate.metrics import TargetSet
    from trackserve.event import Bool, Float64, Hits, Truth

DEFINITIONS = {
    **{targets.name: targets.definition for targets in TARGET_SETS},
    "track": "at least 3 hits with one label",
    "efficiency": "targets matched by double majority, over targets: more than half of the track's "
    "hits come from the particle and more than half of the particle's hits are on the track",
    "single_majority": "the same with only the first half of that condition",
    "perfect": "targets with a track of all their hits and no other, over targets",
    "fake_rate": "tracks whose majority particle (of any kind) made half or less of their hits, "
    "over all tracks",
    "hard_fake_rate": f"the same among tracks whose majority particle has pT > {HARD_PT:g} GeV",
    "target_fake_rate": "the same among tracks whose majority particle has a pT of the set; for "
    "`pixel`, tracks are judged by their hits in the pixel detector",
    "duplicate_rate": "further tracks matched (single majority) to an already matched particle of "
    "any kind, over all tracks",
    "target_duplicate_rate": "the same for target particles only, over the tracks matched to them",
    "trackml_score": "sum of the weights of the hits that double-majority tracks share with their "
    "particles (arXiv:1904.06778), mean over events",
    "edge efficiency": "true edges of headline targets that are present, over all of them; they join "
    "consecutive hits by distance from where the particle was produced",
    "edge purity": "edges between two hits of one particle, of any kind, over edges",
    "edge target purity": "true edges of headline targets, over edges",
    "no_edge": "lost after the neighbours: no piece of the particle's hits, connected by edges "
    "between them, holds more than half of them",
    "cut_by_filter, cut_by_triplets, cut_by_gnn": "lost after that stage, in the same sense",
    "split": "none of these, and no track holds more than half of the particle's hits",
    "merged": "none of these; a track holds them, but half or more of its hits come from elsewhere",
    "density": f"other hits within {DENSITY_RADIUS:g} mm of a hit, mean over the particle's hits",
    "intervals": "68.3 %, Wilson",
}
"""Every term of an evaluation in words, printed with every result."""


@dataclass(frozen=True, eq=False)
class StagedTracks:
    """The tracks of one event and the edges ``[2, E]`` left after each stage, in their order.

    Both are numbered by the rows of the hits.
    """

    tracks: Tracks
    stages: Mapping[str, Int64]


def with_stages(pipeline: Pipeline) -> Callable[[Hits], StagedTracks]:
    """Return a track finder that also gives the edges after neighbours, filter, triplets and GNN."""
    # The pipeline needs the [server] extra; judging tracks does not.
    from trackserve.pipeline.features import hit_features

    bundle = pipeline.bundle

    def find(hits: Hits) -> StagedTracks:
        out = pipeline.run(hit_features(hits, bundle.features))
        passed = out.scored.scores >= np.float32(bundle.track_builder.cut)
        stages = {
            "neighbours": out.order[out.candidates.edges],
            "filter": out.order[out.filtered.edges],
            **({} if bundle.triplets is None else {"triplets": out.order[out.joined.edges]}),
            "gnn": out.order[out.scored.edges[:, passed]],
        }
        return StagedTracks(Tracks(out.labels()), stages)

    return find


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is known of a track finder from one event, or from several added up.

    ``hits`` counts hits, ``fakes`` and ``duplicates`` are over all tracks, ``hard_fakes`` over those
    whose majority particle is above HARD_PT, ``scores`` holds the
    TrackML score of each event; ``targets`` has one entry for each set of targets, ``stages`` one
    for each stage whose edges were given.
    """

    hits: int
    fakes: Ratio
    hard_fakes: Ratio
    duplicates: Ratio
    scores: tuple[float, ...]
    targets: Mapping[str, TargetCounts]
    stages: Mapping[str, EdgeCounts]

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.hits + other.hits,
            self.fakes + other.fakes,
            self.hard_fakes + other.hard_fakes,
            self.duplicates + other.duplicates,
            self.scores + other.scores,
            {name: self.targets[name] + other.targets[name] for name in self.targets},
            {name: self.stages[name] + other.stages[name] for name in self.stages},
        )

    @property
    def events(self) -> int:
        """The number of events."""
        return len(self.scores)

    @property
    def score_spread(self) -> float:
        """The standard deviation of the TrackML score over events; 0 for one event."""
        return float(np.std(self.scores, ddof=1)) if self.events > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return every number and the definitions as nested dicts that ``json`` can write.

        Fake and duplicate rate concern all tracks; they stand in each set of targets too, beside
        the efficiency that they were paid for.
        """
        rates = {
            "fake_rate": self.fakes.to_json(),
            "hard_fake_rate": self.hard_fakes.to_json(),
            "duplicate_rate": self.duplicates.to_json(),
        }
        return {
            "events": self.events,
            "hits": self.hits,
            "tracks": self.fakes.total,
            **{
                targets.name: {
                    "definition": targets.definition,
                    **self.targets[targets.name].to_json(),
                    **rates,
                }
                for targets in TARGET_SETS
            },
            **rates,
            "trackml_score": {
                "mean": float(np.mean(self.scores)),
                "spread": self.score_spread,
                "per_event": list(self.scores),
            },
            "stages": {name: counts.to_json(self.events) for name, counts in self.stages.items()},
            "definitions": DEFINITIONS,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that :meth:`to_json` wrote, so that it can be added to others."""
        return cls(
            hits=written["hits"],
            fakes=Ratio.from_json(written["fake_rate"]),
            hard_fakes=Ratio.from_json(written["hard_fake_rate"]),
            duplicates=Ratio.from_json(written["duplicate_rate"]),
            scores=tuple(written["trackml_score"]["per_event"]),
            targets={t.name: TargetCounts.from_json(written[t.name]) for t in TARGET_SETS},
            stages={name: EdgeCounts.from_json(each) for name, each in written["stages"].items()},
        )

    def table(self) -> str:
        """Return every number that is not binned, and the definitions, as aligned plain text."""
        died = list(self.targets[HEADLINE.name].losses)
        rows = [
            ["", "targets", "efficiency", "single majority", "perfect", "duplicates", "fakes"],
            *(
                [
                    name,
                    f"{c.efficiency.total:,}",
                    *map(str, (c.efficiency, c.single_majority, c.perfect, c.duplicates, c.fakes)),
                ]
                for name, c in self.targets.items()
            ),
        ]
        lost = [
            ["lost", *(name.replace("_", " ") for name in died), "of"],
            *(
                [name, *(f"{c.losses[d]:,}" for d in died), f"{c.efficiency.total:,}"]
                for name, c in self.targets.items()
            ),
        ]
        stages = [
            ["stage", "edges/event", "edge efficiency", "edge purity", "edge target purity"],
            *(
                [
                    name,
                    f"{c.edges / self.events:,.0f}",
                    str(c.efficiency),
                    str(c.purity),
                    str(c.target_purity),
                ]
                for name, c in self.stages.items()
            ),
        ]
        totals = [
            ["events", f"{self.events:,}"],
            ["hits", f"{self.hits:,}"],
            ["tracks", f"{self.fakes.total:,}"],
            ["fake rate", str(self.fakes)],
            [f"of tracks above {HARD_PT:g} GeV", str(self.hard_fakes)],
            ["duplicate rate", str(self.duplicates)],
            ["TrackML score", f"{np.mean(self.scores):.4f} +- {self.score_spread:.4f} per event"],
        ]
        blocks = [totals, rows, self._by_hits(), lost, *([stages] if self.stages else [])]
        return "\n\n".join([*map(_aligned, blocks), definitions_text()])

    def _by_hits(self) -> list[list[str]]:
        """Return the efficiency of each set by the number of hits of the particle, as rows."""
        ranges = [(n, n) for n in range(3, 10)] + [(10, 12), (13, 15), (16, 99)]
        names = [f"{a}" if a == b else f"{a}-{b}" if b < 99 else f"{a} or more" for a, b in ranges]
        rows = [["efficiency by hits, %", *names]]
        for name, counts in self.targets.items():
            binned = counts.bins["hits"]
            first = np.round(binned.edges[:-1] + 0.5)
            row = [name]
            for low, high in ranges:
                inside = (first >= low) & (first <= high)
                total = binned.total[inside].sum()
                row.append(f"{100 * binned.passed[inside].sum() / total:.1f}" if total else "-")
            rows.append(row)
        return rows


def definitions_text() -> str:
    """Return the definitions of every number in an evaluation, one line each."""
    return "\n".join(["Definitions", *(f"  {term}: {text}" for term, text in DEFINITIONS.items())])


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def evaluate_event(event: Event, found: Tracks | StagedTracks) -> Evaluation:
    """Judge the tracks of one event, and its stages where they are given.

    Raises InputError for an event without truth, and for tracks of another number of hits.
    """
    truth = event.truth
    if truth is None:
        message = f"event {event.event_id} has no truth; only simulated events can be evaluated"
        raise InputError(message)
    tracks, stages = (found, {}) if isinstance(found, Tracks) else (found.tracks, found.stages)
    whole = _View.of(truth, tracks.labels, stages)
    pixels = _pixels(event, truth, tracks.labels, stages)
    seen = {t.name: pixels if t.pixels else whole for t in TARGET_SETS}
    chosen = {t.name: t.select(truth, seen[t.name].crossed) for t in TARGET_SETS}
    density = particle_density(event.hits, truth, np.any(list(chosen.values()), axis=0))
    wanted = true_edges(event.hits, truth, chosen[HEADLINE.name])
    matches = whole.matches
    found_tracks = len(matches.track_hits)
    return Evaluation(
        hits=len(event.hits),
        fakes=Ratio(int((~matches.track_pure).sum()), found_tracks),
        hard_fakes=fakes_above(matches, truth.particles.pt > HARD_PT),
        duplicates=Ratio(int(matches.duplicates.sum()), found_tracks),
        scores=(matches.trackml_score,),
        targets={t.name: seen[t.name].count(t, chosen[t.name], density) for t in TARGET_SETS},
        stages={name: EdgeCounts.count(edges, truth, wanted) for name, edges in stages.items()},
    )


@dataclass(frozen=True, eq=False)
class _View:
    """An event, or the part of it in some detectors, with what was found there.

    ``crossed`` ``[P]`` is what a set's least number of hits is compared with: hits, or layers.
    """

    truth: Truth
    matches: Matches
    crossed: Int64
    own_edges: Mapping[str, Int64]

    @classmethod
    def of(cls, truth: Truth, labels: Int64, stages: Mapping[str, Int64]) -> _View:
        """Match tracks, given by the label of each hit, with the particles."""
        matches = match(labels, truth)
        own_edges = {name: same_particle(edges, truth) for name, edges in stages.items()}
        return cls(truth, matches, matches.particle_hits, own_edges)

    def count(self, targets: TargetSet, chosen: Bool, density: Float64) -> TargetCounts:
        """Count the targets ``[P]`` of a set."""
        lost = losses(self.matches, self.truth, chosen, self.own_edges)
        return TargetCounts.count(
            targets, self.truth, self.matches, chosen=chosen, density=density, losses=lost
        )


def _pixels(event: Event, truth: Truth, labels: Int64, stages: Mapping[str, Int64]) -> _View:
    """Return what the pixel detector alone shows; hits without modules are not in it."""
    inside = np.zeros(len(truth), np.bool_)
    if event.hits.modules is not None:
        inside = np.isin(event.hits.modules.volume_id, PIXEL_VOLUMES)
    part = truth.select(np.flatnonzero(inside))
    place = np.cumsum(inside) - 1
    among = {name: place[edges[:, inside[edges].all(axis=0)]] for name, edges in stages.items()}
    view = _View.of(part, labels[inside], among)
    if event.hits.modules is None:
        return view
    return replace(view, crossed=layers_of(part, event.hits.modules, inside))


def pixels_of(event: Event) -> Event:
    """Return an event's hits in the pixel detector alone, with their truth.

    Raises InputError for hits that don't say on which module they lie.
    """
    modules = event.hits.modules
    if modules is None:
        message = (
            f"event {event.event_id} has no volume_id; expected it to select the pixel detector"
        )
        raise InputError(message)
    rows = np.flatnonzero(np.isin(modules.volume_id, PIXEL_VOLUMES))
    truth = None if event.truth is None else event.truth.select(rows)
    return Event(event.event_id, event.hits.select(rows), truth)


def evaluate(events: Iterable[Event], find: Callable[[Hits], Tracks | StagedTracks]) -> Evaluation:
    """Run a track finder on events with truth and judge it on all of them together.

    ``find`` is, for example, ``pipeline.find_tracks``, ``with_stages(pipeline)``, or a client's
    ``find_tracks``. Wrap ``events`` to see progress. Raises InputError where there is no event.
    """
    return add_up(evaluate_event(event, find(event.hits)) for event in events)


def add_up(evaluations: Iterable[Evaluation]) -> Evaluation:
    """Return the evaluation of all events together; raises InputError where there is none."""
    each = iter(evaluations)
    first = next(each, None)
    if first is None:
        message = "there is no event to evaluate; expected at least one with truth"
        raise InputError(message)
    return reduce(add, each, first)
