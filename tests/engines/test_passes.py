"""What every engine owes of a bundle with two passes: the second finds tracks in what the first left over."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from trackserve.contract.wanted import Wanted
from trackserve.engines.passes import left_over
from trackserve.errors import InputError
from trackserve.evaluate.report import with_stages
from trackserve.event import NO_TRACK


def test_both_passes_find_what_the_reference_finds(setup, twice, opened):
    pipeline = opened(twice)
    parts = [twice.features, twice.features[:0], twice.features[::2]]
    if setup.interpreted:  # Triton's interpreter takes seconds an event
        parts = [twice.features[::3]]
    for features, found in zip(parts, pipeline.run_events(parts, Wanted(True)), strict=True):
        (expected,) = twice.pipeline.run_events([features], Wanted(parameters=True))
        np.testing.assert_array_equal(found.tracks.labels, expected.tracks.labels)
        assert found.tracks.parameters is not None
        assert expected.tracks.parameters is not None
        np.testing.assert_allclose(
            found.tracks.parameters.matrix(),
            expected.tracks.parameters.matrix(),
            rtol=1e-4,
            atol=1e-6,
        )
        assert found.timings.edges == expected.timings.edges
        assert found.timings.events == 1


def test_the_second_pass_sees_the_hits_left_over_and_no_others(setup, twice):
    """By hand: the first pass alone, then the second alone on the hits on no track."""
    bundle = twice.bundle
    if setup.interpreted:
        pytest.skip("the engine has no part in it")
    first = setup.open(bundle.first_pass).run_events([twice.features])[0]
    rows = left_over(first.tracks)
    second = setup.open(bundle.second_pass).run_events([twice.features[rows]])[0]
    assert len(first.tracks) >= 5
    assert len(second.tracks) >= 3
    expected = first.tracks.labels.copy()
    on_second = second.tracks.labels != NO_TRACK
    expected[rows[on_second]] = second.tracks.labels[on_second] + len(first.tracks)
    whole = setup.open(bundle)
    (found,) = whole.run_events([twice.features])
    np.testing.assert_array_equal(found.tracks.labels, expected)
    assert found.timings.edges == dict(Counter(first.timings.edges) + Counter(second.timings.edges))
    out = whole.run(twice.features)
    np.testing.assert_array_equal(out.labels(), expected)
    assert out.timings.edges == found.timings.edges
    assert out.second is not None
    np.testing.assert_array_equal(out.second.rows, rows)


@pytest.mark.parametrize("least", [0.0, 0.3, 0.95])
def test_a_cut_on_quality_chooses_among_the_tracks_of_both(twice, least):
    pipeline, bundle = twice.pipeline, twice.bundle
    assert (bundle.track_builder.min_quality, bundle.min_quality) == (0.9, 0.1)
    found = pipeline.find_tracks_from_features(twice.features, parameters=True, min_quality=least)
    assert found.parameters is not None
    assert found.parameters.quality.min() >= np.float32(least)
    if least < bundle.track_builder.min_quality:  # the first pass is as ever
        every = pipeline.find_tracks_from_features(twice.features, parameters=True, min_quality=0.0)
        assert every.parameters is not None
        chosen = every.select(every.parameters.quality >= least)
        np.testing.assert_array_equal(found.labels, chosen.labels)


def test_the_edges_of_both_passes_are_counted_once(twice):
    class Whole:
        bundle = twice.bundle

        def run(self, _features):
            return twice.pipeline.run(twice.features)

    from trackserve.event import Hits

    hits = Hits.from_positions(np.ones((len(twice.features), 3)))
    stages = with_stages(Whole())(hits).stages
    out = twice.pipeline.run(twice.features)
    rows, second = out.second.rows, out.second.outputs
    for name, one, other in (
        ("neighbours", out.candidates, second.candidates),
        ("filter", out.filtered, second.filtered),
        ("triplets", out.joined, second.joined),
    ):
        pairs = [*out.order[one.edges].T.tolist(), *rows[second.order[other.edges]].T.tolist()]
        assert sorted(map(tuple, pairs)) != sorted(set(map(tuple, pairs))), "some are in both"
        assert sorted(map(tuple, stages[name].T.tolist())) == sorted(set(map(tuple, pairs)))


def test_an_engine_alone_opens_no_bundle_of_two_passes(setup, twice):
    """It would find the tracks of the first pass alone, without a word."""
    with pytest.raises(
        InputError, match=r"two passes over an event; open both with trackserve\.open_pipeline"
    ):
        setup.open_bundle(twice.bundle, threads=1, precision="float32")
    assert twice.bundle.first_pass.second_pass is None
