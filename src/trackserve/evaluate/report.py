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
    Binned,
    TargetCounts,
    fakes_above,
    layers_of,
    particle_density,
    track_bins,
)
from trackserve.evaluate.stages import EdgeCounts, losses, same_particle, true_edges
from trackserve.evaluate.targets import OwnTargets
from trackserve.evaluate.text import blocks
from trackserve.event import Event, Int64, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trackserve.bundle import Bundle
    from trackserve.engines.base import Pipeline
    from trackserve.evaluate.metrics import TargetSet
    from trackserve.event import Bool, Float64, Hits, Truth
    from trackserve.pipeline.stages import StageOutputs

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
    "target_fake_rate of one's own targets": "the same among tracks whose majority particle is one of them",
    "tracks by pt, eta": "of the majority particle; tracks of noise alone have none and are left out",
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
        stages = _edges_after_stages(out, bundle)
        if out.second is not None and bundle.second_pass is not None:
            rows = out.second.rows
            further = _edges_after_stages(out.second.outputs, bundle.second_pass)
            stages = {n: _united(edges, rows[further[n]]) for n, edges in stages.items()}
        return StagedTracks(Tracks(out.labels()), stages)

    return find


def _edges_after_stages(out: StageOutputs, bundle: Bundle) -> dict[str, Int64]:
    """Return the edges ``[2, E]`` after each stage of one pass, by the rows of its hits."""
    passed = out.scored.scores >= np.float32(bundle.track_builder.cut)
    return {
        "neighbours": out.order[out.candidates.edges],
        "filter": out.order[out.filtered.edges],
        **({} if bundle.triplets is None else {"triplets": out.order[out.joined.edges]}),
        "gnn": out.order[out.scored.edges[:, passed]],
    }


def _united(edges: Int64, further: Int64) -> Int64:
    """Return edges ``[2, E]`` and those of ``further`` that are not among them."""
    hits = int(max(edges.max(initial=0), further.max(initial=0))) + 1
    new = ~np.isin(further[0] * hits + further[1], edges[0] * hits + edges[1])
    return np.concatenate([edges, further[:, new]], axis=1)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is known of a track finder from one event, or from several added up.

    ``hits`` counts hits, ``fakes`` and ``duplicates`` are over all tracks, ``hard_fakes`` over those
    whose majority particle is above HARD_PT, ``scores`` holds the
    TrackML score of each event, nan where its hits have no weights; ``targets`` has one entry for each
    set of targets, ``own`` are those that were asked for beside the usual ones; ``stages`` has one entry
    for each stage whose edges were given, ``track_bins`` the rates of fakes and duplicates by variable.
    """

    hits: int
    fakes: Ratio
    hard_fakes: Ratio
    duplicates: Ratio
    scores: tuple[float, ...]
    targets: Mapping[str, TargetCounts]
    stages: Mapping[str, EdgeCounts]
    track_bins: Mapping[str, Mapping[str, Binned]]
    own: tuple[TargetSet, ...] = ()

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            self.hits + other.hits,
            self.fakes + other.fakes,
            self.hard_fakes + other.hard_fakes,
            self.duplicates + other.duplicates,
            self.scores + other.scores,
            {name: self.targets[name] + other.targets[name] for name in self.targets},
            {name: self.stages[name] + other.stages[name] for name in self.stages},
            {
                variable: {
                    name: bins + other.track_bins[variable][name] for name, bins in each.items()
                }
                for variable, each in self.track_bins.items()
            },
            self.own,
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
                for targets in (*TARGET_SETS, *self.own)
            },
            **rates,
            "trackml_score": {
                "mean": _or_none(float(np.mean(self.scores))),
                "spread": _or_none(self.score_spread),
                "per_event": [_or_none(score) for score in self.scores],
            },
            "own_targets": [targets.name for targets in self.own],
            "track_bins": {
                variable: {name: binned.to_json() for name, binned in each.items()}
                for variable, each in self.track_bins.items()
            },
            "stages": {name: counts.to_json(self.events) for name, counts in self.stages.items()},
            "definitions": DEFINITIONS,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that :meth:`to_json` wrote, so that it can be added to others."""
        own = tuple(OwnTargets(name) for name in written["own_targets"])
        return cls(
            hits=written["hits"],
            fakes=Ratio.from_json(written["fake_rate"]),
            hard_fakes=Ratio.from_json(written["hard_fake_rate"]),
            duplicates=Ratio.from_json(written["duplicate_rate"]),
            scores=tuple(
                np.nan if score is None else score
                for score in written["trackml_score"]["per_event"]
            ),
            targets={t.name: TargetCounts.from_json(written[t.name]) for t in (*TARGET_SETS, *own)},
            stages={name: EdgeCounts.from_json(each) for name, each in written["stages"].items()},
            track_bins={
                variable: {name: Binned.from_json(each) for name, each in bins.items()}
                for variable, bins in written["track_bins"].items()
            },
            own=own,
        )

    def table(self, *, explain: bool = False, variables: Sequence[str] = ()) -> str:
        """Return every number that is not binned as aligned plain text, and the bins of these variables.

        With ``explain`` the definitions of them all follow.
        """
        text = blocks(self, variables)
        return "\n\n".join([*text, definitions_text(self.own)] if explain else text)


def definitions_text(own: Sequence[TargetSet] = ()) -> str:
    """Return the definitions of every number in an evaluation, one line each."""
    terms = {**{each.name: each.definition for each in own}, **DEFINITIONS}
    return "\n".join(["Definitions", *(f"  {term}: {text}" for term, text in terms.items())])


def _or_none(number: float) -> float | None:
    """Return a number as JSON has it."""
    return None if np.isnan(number) else number


def evaluate_event(
    event: Event, found: Tracks | StagedTracks, own: Sequence[TargetSet] = ()
) -> Evaluation:
    """Judge the tracks of one event, its stages where they are given, and ``own`` sets of targets.

    Raises InputError for an event without truth, and for tracks of another number of hits.
    """
    truth = event.truth
    if truth is None:
        message = f"event {event.event_id} has no truth; only simulated events can be evaluated"
        raise InputError(message)
    tracks, stages = (found, {}) if isinstance(found, Tracks) else (found.tracks, found.stages)
    sets = (*TARGET_SETS, *own)
    whole, seen = _views(event, truth, tracks.labels, stages, sets)
    chosen = {t.name: t.select(truth, seen[t.name].crossed) for t in sets}
    density = particle_density(event.hits, truth, np.any(list(chosen.values()), axis=0))
    wanted = true_edges(event.hits, truth, chosen[HEADLINE.name])
    matches = whole.matches
    found_tracks = len(matches.track_hits)
    weighted = truth.weight.any() or not len(truth)
    return Evaluation(
        hits=len(event.hits),
        fakes=Ratio(int((~matches.track_pure).sum()), found_tracks),
        hard_fakes=fakes_above(matches, truth.particles.pt > HARD_PT),
        duplicates=Ratio(int(matches.duplicates.sum()), found_tracks),
        scores=(matches.trackml_score if weighted else np.nan,),
        targets={t.name: seen[t.name].count(t, chosen[t.name], density) for t in sets},
        stages={name: EdgeCounts.count(edges, truth, wanted) for name, edges in stages.items()},
        track_bins=track_bins(matches, truth),
        own=tuple(own),
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


def _views(
    event: Event,
    truth: Truth,
    labels: Int64,
    stages: Mapping[str, Int64],
    sets: Sequence[TargetSet],
) -> tuple[_View, dict[str, _View]]:
    """Return the whole event, and what each set of targets is judged by: that, or the pixel detector."""
    whole = _View.of(truth, labels, stages)
    pixels = _pixels(event, truth, labels, stages)
    return whole, {each.name: pixels if each.pixels else whole for each in sets}


def found_targets(
    event: Event, tracks: Tracks, own: Sequence[TargetSet] = ()
) -> dict[str, tuple[Bool, Bool]]:
    """Return which particles ``[P]`` are targets of each set, and which have a track by double majority.

    Raises InputError for an event without truth.
    """
    if event.truth is None:
        message = f"event {event.event_id} has no truth; only simulated events can be evaluated"
        raise InputError(message)
    sets = (*TARGET_SETS, *own)
    _, seen = _views(event, event.truth, tracks.labels, {}, sets)
    return {
        t.name: (
            t.select(event.truth, seen[t.name].crossed),
            seen[t.name].matches.particle_matched,
        )
        for t in sets
    }


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

    Raises :class:`InputError` for hits without module numbers.
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


def evaluate(
    events: Iterable[Event],
    find: Callable[[Hits], Tracks | StagedTracks],
    own: Sequence[TargetSet] = (),
) -> Evaluation:
    """Run a track finder on events with truth and judge it on all of them together.

    ``find`` is, for example, ``pipeline.find_tracks``, ``with_stages(pipeline)``, or a client's
    ``find_tracks``. Wrap ``events`` to see progress. Raises InputError where there is no event.
    """
    return add_up(evaluate_event(event, find(event.hits), own) for event in events)


def add_up(evaluations: Iterable[Evaluation]) -> Evaluation:
    """Return the evaluation of all events together; raises InputError where there is none."""
    each = iter(evaluations)
    first = next(each, None)
    if first is None:
        message = "there is no event to evaluate; expected at least one with truth"
        raise InputError(message)
    return reduce(add, each, first)
