"""Judging a track finder on many events: one pass, every number, as JSON and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import match
from trackserve.evaluate.metrics import (
    DENSITY_RADIUS,
    HEADLINE,
    TARGET_SETS,
    TargetCounts,
    particle_density,
)
from trackserve.evaluate.stages import EdgeCounts, losses, same_particle, true_edges
from trackserve.event import Int64, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trackserve.event import Event, Hits
    from trackserve.pipeline import Pipeline

DEFINITIONS = {
    **{targets.name: targets.definition for targets in TARGET_SETS},
    "track": "at least 3 hits with one label",
    "efficiency": "targets matched by double majority, over targets: more than half of the track's "
    "hits come from the particle and more than half of the particle's hits are on the track",
    "single_majority": "the same with only the first half of that condition",
    "perfect": "targets with a track of all their hits and no other, over targets",
    "fake_rate": "tracks whose majority particle (of any kind) made half or less of their hits, "
    "over all tracks",
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
class Found:
    """The tracks of one event and the edges ``[2, E]`` left after each stage, in their order.

    Both are numbered by the rows of the hits.
    """

    tracks: Tracks
    stages: Mapping[str, Int64]


def with_stages(pipeline: Pipeline) -> Callable[[Hits], Found]:
    """Return a track finder that also gives the edges after neighbours, filter, triplets and GNN."""
    # The pipeline needs the [server] extra; judging tracks does not.
    from trackserve.pipeline.features import hit_features

    bundle = pipeline.bundle

    def find(hits: Hits) -> Found:
        out = pipeline.run(hit_features(hits, bundle.features))
        passed = out.scored.scores >= np.float32(bundle.track_builder.cut)
        stages = {
            "neighbours": out.order[out.candidates.edges],
            "filter": out.order[out.filtered.edges],
            **({} if bundle.triplets is None else {"triplets": out.order[out.joined.edges]}),
            "gnn": out.order[out.scored.edges[:, passed]],
        }
        return Found(Tracks(out.labels()), stages)

    return find


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is known of a track finder from one event, or from several added up.

    ``hits`` counts hits, ``fakes`` and ``duplicates`` are over all tracks, ``scores`` holds the
    TrackML score of each event; ``targets`` has one entry for each set of targets, ``stages`` one
    for each stage whose edges were given.
    """

    hits: int
    fakes: Ratio
    duplicates: Ratio
    scores: tuple[float, ...]
    targets: Mapping[str, TargetCounts]
    stages: Mapping[str, EdgeCounts]

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.hits + other.hits,
            self.fakes + other.fakes,
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
        rates = {"fake_rate": self.fakes.to_json(), "duplicate_rate": self.duplicates.to_json()}
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
            duplicates=Ratio.from_json(written["duplicate_rate"]),
            scores=tuple(written["trackml_score"]["per_event"]),
            targets={t.name: TargetCounts.from_json(written[t.name]) for t in TARGET_SETS},
            stages={name: EdgeCounts.from_json(each) for name, each in written["stages"].items()},
        )

    def table(self) -> str:
        """Return every number that is not binned, and the definitions, as aligned plain text."""
        counts = list(self.targets.values())
        rows = [
            ["", *self.targets],
            ["targets", *(f"{c.efficiency.total:,}" for c in counts)],
            ["efficiency", *(str(c.efficiency) for c in counts)],
            ["single majority", *(str(c.single_majority) for c in counts)],
            ["perfect", *(str(c.perfect) for c in counts)],
            ["duplicates", *(str(c.duplicates) for c in counts)],
            *(
                [f"lost: {name.replace('_', ' ')}", *(f"{c.losses[name]:,}" for c in counts)]
                for name in counts[0].losses
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
            ["duplicate rate", str(self.duplicates)],
            ["TrackML score", f"{np.mean(self.scores):.4f} +- {self.score_spread:.4f} per event"],
        ]
        blocks = [totals, rows, *([stages] if self.stages else [])]
        return "\n\n".join([*map(_aligned, blocks), definitions_text()])


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


def evaluate_event(event: Event, found: Tracks | Found) -> Evaluation:
    """Judge the tracks of one event, and its stages where they are given.

    Raises InputError for an event without truth, and for tracks of another number of hits.
    """
    truth = event.truth
    if truth is None:
        message = f"event {event.event_id} has no truth; only simulated events can be evaluated"
        raise InputError(message)
    tracks, stages = (found, {}) if isinstance(found, Tracks) else (found.tracks, found.stages)
    matches = match(tracks.labels, truth)
    chosen = {t.name: t.select(truth, matches.particle_hits) for t in TARGET_SETS}
    density = particle_density(event.hits, truth, np.any(list(chosen.values()), axis=0))
    wanted = true_edges(event.hits, truth, chosen[HEADLINE.name])
    own_edges = {name: same_particle(edges, truth) for name, edges in stages.items()}
    found_tracks = len(matches.track_hits)
    return Evaluation(
        hits=len(event.hits),
        fakes=Ratio(int((~matches.track_pure).sum()), found_tracks),
        duplicates=Ratio(int(matches.duplicates.sum()), found_tracks),
        scores=(matches.trackml_score,),
        targets={
            t.name: TargetCounts.count(
                t, truth, matches, density, losses(matches, truth, chosen[t.name], own_edges)
            )
            for t in TARGET_SETS
        },
        stages={name: EdgeCounts.count(edges, truth, wanted) for name, edges in stages.items()},
    )


def evaluate(events: Iterable[Event], find: Callable[[Hits], Tracks | Found]) -> Evaluation:
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
