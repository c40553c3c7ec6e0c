"""What every engine owes: the results of the reference, in float32 within the tolerance that it states."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trackserve.contract.wanted import Wanted
from trackserve.engines.registry import engine
from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Hits, ScoredGraph, TripletGraph
from trackserve.pipeline.neighbours import neighbours
from trackserve.pipeline.timings import EDGE_STAGES, STAGE_NAMES, Timings
from trackserve.pipeline.tracks import find_tracks

if TYPE_CHECKING:
    from trackserve.engines.base import Pipeline
    from trackserve.event import Float32, Int64
    from trackserve.pipeline.stages import StageOutputs

# Numbers beyond any detector overflow in numpy as they do on a device.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def parts(features: Float32, count: int = 3) -> list[Float32]:
    """Events of different sizes, an empty one among them."""
    ends = np.linspace(0, len(features), count + 1).astype(int) ** 2 // len(features)
    events = [features[a:b] for a, b in pairwise(ends)]
    return [events[0], features[:0], *events[1:]]


def counted(outputs: StageOutputs) -> dict[str, int]:
    """The edges that each stage left, counted by hand."""
    graphs = (outputs.candidates, outputs.filtered, outputs.joined)
    return dict(zip(EDGE_STAGES, (graph.edges.shape[1] for graph in graphs), strict=True))


def test_every_stage_returns_what_the_reference_makes_of_its_input(setup, form, opened):
    expected, bundle = form.outputs, form.bundle
    found = opened(form).run(form.features, parameters=bundle.fit is not None)
    tolerance = engine(setup.engine).tolerance
    np.testing.assert_array_equal(found.order, expected.order)
    largest = max(1.0, float(np.abs(expected.embedding).max()))
    np.testing.assert_allclose(
        found.embedding, expected.embedding, rtol=0, atol=tolerance * largest
    )
    candidates = neighbours(
        found.embedding,
        form.features[found.order],
        bundle.features,
        radius=bundle.radius,
        limit=bundle.neighbour_limit,
        cuts=bundle.doublet_cuts,
    )
    np.testing.assert_array_equal(found.candidates.edges, candidates.edges)
    np.testing.assert_array_equal(found.filtered.edges, expected.filtered.edges)
    np.testing.assert_array_equal(found.joined.edges, expected.joined.edges)
    if bundle.triplets is not None:
        assert isinstance(found.joined, TripletGraph)
        np.testing.assert_array_equal(found.joined.triplets, expected.joined.triplets)
    np.testing.assert_array_equal(found.scored.edges, expected.scored.edges)
    # A score is the logistic function of a logit, whose slope is at most 1/4.
    score = np.clip(expected.scored.scores.astype(np.float64), 1e-12, 1 - 1e-12)
    largest = max(1.0, float(np.abs(np.log(score / (1 - score))).max()))
    np.testing.assert_allclose(
        found.scored.scores, expected.scored.scores, rtol=0, atol=tolerance * largest / 4
    )
    tracks = find_tracks(
        ScoredGraph(found.scored.features, found.scored.edges, found.scored.scores),
        bundle.track_stage,
    )
    np.testing.assert_array_equal(found.tracks.labels, tracks.labels)
    np.testing.assert_array_equal(found.labels(), expected.labels())


def test_the_event_has_something_to_find_at_every_stage(form):
    """Else agreement on it would say nothing."""
    left = [len(form.features) ** 2, *counted(form.outputs).values()]
    assert left[0] > left[1] > left[2] > 100
    assert left[2] > left[3] if form.bundle.triplets else left[2] == left[3]
    assert len(form.outputs.tracks) >= 5
    assert (form.outputs.tracks.labels == NO_TRACK).sum() > 50


def test_one_call_finds_what_the_stages_do(form, opened):
    labels = opened(form).find_tracks_from_features(form.features).labels
    np.testing.assert_array_equal(labels, form.outputs.labels())


def test_hits_give_the_tracks_of_their_features(shipped, opened):
    hits = Hits.from_positions(np.random.default_rng(0).normal(0, 300, (40, 3)))
    found = opened(shipped).find_tracks(hits).labels
    np.testing.assert_array_equal(found, shipped.pipeline.find_tracks(hits).labels)


def test_parameters_are_those_of_the_reference(form, opened):
    pipeline = opened(form)
    if form.bundle.fit is None:
        with pytest.raises(InputError, match="fit"):
            pipeline.find_tracks_from_features(form.features, parameters=True)
        return
    found = pipeline.find_tracks_from_features(form.features, parameters=True)
    (expected,) = form.pipeline.run_events([form.features], Wanted(parameters=True))
    np.testing.assert_array_equal(found.labels, expected.tracks.labels)
    assert found.parameters is not None
    assert expected.tracks.parameters is not None
    np.testing.assert_allclose(
        found.parameters.matrix(), expected.tracks.parameters.matrix(), rtol=1e-4, atol=1e-6
    )
    assert pipeline.find_tracks_from_features(form.features).parameters is None


def test_events_together_have_the_tracks_of_each_alone(form, opened):
    pipeline, events = opened(form), parts(form.features)
    together = pipeline.find_tracks_of_events(events)
    for features, tracks in zip(events, together, strict=True):
        alone = pipeline.find_tracks_from_features(features)
        np.testing.assert_array_equal(tracks.labels, alone.labels)
    assert sum(map(len, together)) > 0
    assert pipeline.find_tracks_of_events([]) == []


def test_timings_have_every_stage_and_the_edges_counted_by_hand(form, opened):
    pipeline, events = opened(form), parts(form.features)
    outputs = [pipeline.run(features) for features in events]
    for found in (pipeline.run_events(events), [pipeline.run_events([e])[0] for e in events]):
        assert [each.timings.edges for each in found] == [counted(out) for out in outputs]
        for each, out in zip(found, outputs, strict=True):
            assert each.timings.events == out.timings.events == 1
            assert list(each.timings.seconds) == list(out.timings.seconds) == list(STAGE_NAMES[1:])
            assert out.timings.edges == each.timings.edges
        total: Timings = reduce(add, (each.timings for each in found))
        assert total.events == len(events)
        assert total.edges == reduce(add, map(Counter, map(counted, outputs)))
        assert min(total.seconds.values()) > 0


def test_the_order_of_hits_renumbers_nothing(form, opened):
    shuffled = np.random.default_rng(0).permutation(len(form.features))
    labels = opened(form).find_tracks_from_features(form.features[shuffled]).labels
    np.testing.assert_array_equal(labels, form.outputs.labels()[shuffled])


def test_repetition_and_threads_change_nothing(setup, shipped, opened):
    first = opened(shipped).run(shipped.features)
    for pipeline in (opened(shipped), setup.open(shipped.bundle, threads=3)):
        again = pipeline.run(shipped.features)
        np.testing.assert_array_equal(again.embedding, first.embedding)
        np.testing.assert_array_equal(again.scored.edges, first.scored.edges)
        np.testing.assert_array_equal(again.scored.scores, first.scored.scores)
        labels = pipeline.find_tracks_from_features(shipped.features).labels
        np.testing.assert_array_equal(labels, first.labels())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_events_of_so_few_hits_have_no_tracks(form, opened, count):
    assert opened(form).find_tracks_from_features(form.features[:count]).labels.tolist() == (
        [NO_TRACK] * count
    )


@pytest.mark.parametrize("name", ["nan", "inf", "a column less", "float64"])
def test_features_that_cannot_be_used_are_refused(shipped, opened, name):
    features = shipped.features[:20].copy()
    if name in {"nan", "inf"}:
        features[7, 1] = float(name)
    given = {"a column less": features[:, 1:], "float64": features.astype(np.float64)}
    good = shipped.features[20:40]
    with pytest.raises(InputError):
        opened(shipped).find_tracks_of_events([good, given.get(name, features)])


def hostile(features: Float32) -> dict[str, Float32]:
    """Events that no detector sends."""
    noise = np.random.default_rng(0).normal(size=(200, features.shape[1]))
    return {
        "huge": (1e30 * noise).astype(np.float32),
        "one huge hit": np.concatenate([features, np.full_like(features[:1], 3e38)]),
        "all at the origin": np.zeros_like(features[:200]),
        "all at one place": np.repeat(features[:1], 200, axis=0),
        "each hit four times": np.repeat(features[:60], 4, axis=0),
        "smallest numbers": (1e-40 * noise).astype(np.float32),
    }


def outcome(pipeline: Pipeline, features: Float32) -> Int64 | None:
    """The labels of an event, None if it is refused."""
    try:
        return pipeline.run_events([features])[0].tracks.labels  # without a warning of scales
    except InputError as error:
        assert str(error).count("\n") == 0
        return None


def tracks_of_places(labels: Int64) -> list[list[int]]:
    """The places of each track's hits, where four hits in turn are at one place."""
    tracks = np.unique(labels[labels != NO_TRACK])
    return sorted((np.flatnonzero(labels == track) // 4).tolist() for track in tracks)


@pytest.mark.parametrize("name", hostile(np.zeros((200, 3), np.float32)))
def test_hostile_events_are_answered_or_refused_and_the_next_one_answered(
    setup, form, opened, name
):
    features, pipeline = hostile(form.features)[name], opened(form)
    found, expected = outcome(pipeline, features), outcome(form.pipeline, features)
    assert (found is None) >= (expected is None), "the reference refuses it"
    if found is not None:
        assert found.shape == (len(features),)
        assert found.min() >= NO_TRACK
    if found is not None and expected is not None:
        # Of identical hits it may be any that a track takes. Engines take the same, but where a
        # score's last digit depends on the hit's place in a block.
        if setup.engine == "gpu" and name == "each hit four times":
            assert tracks_of_places(found) == tracks_of_places(expected)
        else:
            np.testing.assert_array_equal(found, expected)
    labels = pipeline.find_tracks_from_features(form.features).labels
    np.testing.assert_array_equal(labels, form.outputs.labels())


def test_a_lower_precision_finds_nearly_the_same_tracks(setup, shipped, opened):
    device = opened(shipped).device
    expected = shipped.outputs.labels()
    for precision in engine(setup.engine).precisions(device):
        pipeline = setup.open(shipped.bundle, precision=precision)
        found = pipeline.find_tracks_from_features(shipped.features).labels
        alike = sum(
            2 * Counter(found[expected == track].tolist()).most_common(1)[0][1]
            > max((expected == track).sum(), 1)
            and Counter(found[expected == track].tolist()).most_common(1)[0][0] != NO_TRACK
            for track in range(expected.max() + 1)
        )
        assert alike >= 0.85 * (expected.max() + 1)


def test_the_shipped_bundle_runs_as_a_whole_on_the_engine(shipped, opened):
    assert opened(shipped).notes == []
