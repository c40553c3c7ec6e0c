import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_events import event_of, labels, truth_of

from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import match
from trackserve.evaluate.metrics import (
    HEADLINE,
    LOW_PT,
    STRICT,
    TARGET_SETS,
    UNITS,
    Binned,
    TargetCounts,
    TargetSet,
    bin_edges,
    fakes_above,
    layers_of,
    local_density,
    particle_density,
)
from trackserve.event import Hits, Int64, Modules, Truth


def chosen(targets: TargetSet, hits: int = 6, **kind: object) -> bool:
    truth = truth_of([7] * hits, **kind)
    return bool(targets.select(truth, np.array([hits]))[0])


@pytest.mark.parametrize(
    ("kind", "headline", "strict", "low_pt"),
    [
        ({}, True, True, False),
        ({"hits": 5}, True, False, False),
        ({"hits": 2}, False, False, False),
        ({"eta": -3.5}, True, False, False),
        ({"eta": 4.1}, False, False, False),
        ({"pt": 0.9}, False, False, True),
        ({"pt": 0.4}, False, False, False),
        ({"charge": 0.0}, False, False, False),
        ({"charge": -1.0}, True, True, False),
        ({"primary": False}, False, False, False),
        ({"vertex": (1.0, 1.0, 150.0)}, True, True, False),
        ({"vertex": (1.5, 1.5, 0.0)}, False, False, False),
    ],
)
def test_targets(kind: dict[str, object], headline: bool, strict: bool, low_pt: bool) -> None:
    found = tuple(chosen(targets, **kind) for targets in (HEADLINE, STRICT, LOW_PT))  # type: ignore[arg-type]
    assert found == (headline, strict, low_pt)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"pt": 0.4}, {"soft"}),
        ({"pt": 0.95, "primary": False}, {"pixel"}),
        ({"pt": 0.95, "hits": 2}, set()),
        ({"pt": 0.6, "vertex": (0.0, 2.0, 0.0), "primary": False}, {"displaced_2_30"}),
        ({"pt": 0.6, "vertex": (0.0, 30.0, 0.0), "primary": False}, {"displaced_30_120"}),
        ({"pt": 0.6, "vertex": (0.0, 299.0, 0.0)}, {"displaced_120_300"}),
        ({"pt": 0.6, "vertex": (0.0, 299.0, 0.0), "hits": 5}, set()),
        ({"pt": 0.6, "vertex": (0.0, 301.0, 0.0)}, set()),
        ({"pt": 2.0, "vertex": (0.0, 301.0, 0.0)}, {"pixel"}),
        ({"pt": 2.0, "charge": 0.0}, set()),
    ],
)
def test_soft_pixel_and_displaced_targets(kind: dict[str, object], expected: set[str]) -> None:
    found = {t.name for t in TARGET_SETS if chosen(t, **kind)}  # type: ignore[arg-type]
    assert found - {"headline", "strict", "low_pt"} == expected


def test_a_set_of_pixels_counts_layers_of_the_chosen_hits() -> None:
    truth = truth_of([3, 3, 3, 8, 8, 0])
    volume, layer = np.array([8, 8, 7, 8, 8, 8], np.int32), np.array([2, 2, 2, 2, 4, 6], np.int32)
    modules = Modules(volume, layer, np.arange(6, dtype=np.int32))
    every = np.ones(6, np.bool_)
    assert layers_of(truth, modules, every).tolist() == [2, 2]
    chosen = np.array([True, True, False, False, False, True])
    assert layers_of(truth.select(chosen), modules, chosen).tolist() == [1, 0]


def test_definitions_say_what_is_selected() -> None:
    assert STRICT.definition == (
        "charged, primary, produced within 2 mm of the beam line, pT > 1 GeV, |eta| < 3, "
        "at least 6 hits"
    )
    assert "0.5 < pT < 1 GeV" in LOW_PT.definition


def test_density_counts_neighbours_within_ten_millimetres() -> None:
    positions = np.array([[0, 0, 0], [9.9, 0, 0], [0, 0, -10], [0, 8, 8], [500, 0, 0]], np.float32)
    assert local_density(Hits.from_positions(positions), np.arange(5)).tolist() == [2, 1, 1, 0, 0]


def test_density_agrees_with_all_pairs() -> None:
    random = np.random.default_rng(4)
    positions = (random.normal(size=(700, 3)) * [20, 20, 60]).astype(np.float32)
    rows = random.permutation(700)[:200]
    distance = np.linalg.norm(
        positions[rows, None].astype(float) - positions[None].astype(float), axis=2
    )
    expected = (distance <= 10).sum(axis=1) - 1
    assert local_density(Hits.from_positions(positions), rows).tolist() == expected.tolist()
    assert expected.max() > 5


def test_density_of_a_particle_is_the_mean_over_its_hits() -> None:
    # Hits every 10 mm on a line: the two outer ones have one neighbour, the middle one two.
    event = event_of([3, 3, 3, 8])
    assert event.truth is not None
    asked = np.array([True, False])
    assert particle_density(event.hits, event.truth, asked) == pytest.approx([4 / 3, 0])


def test_density_of_no_hits() -> None:
    event = event_of([])
    assert event.truth is not None
    assert len(particle_density(event.hits, event.truth, np.empty(0, bool))) == 0


def test_values_beyond_the_edges_go_to_the_outermost_bins() -> None:
    binned = Binned.count(
        np.array([0.0, 1.0, 2.0]),
        np.array([-5.0, 0.5, 1.0, 99.0]),
        np.array([True, False, True, True]),
    )
    assert binned.total.tolist() == [2, 2]
    assert binned.passed.tolist() == [1, 2]
    assert binned.value.tolist() == [0.5, 1.0]


def test_empty_bin_has_no_value() -> None:
    binned = Binned.count(np.array([0.0, 1.0, 2.0]), np.array([0.5]), np.array([True]))
    assert binned.to_json()["value"] == [1.0, None]
    assert binned.to_json()["low"][1] == 0


@pytest.mark.parametrize("targets", TARGET_SETS, ids=lambda t: t.name)
def test_edges_rise_and_cover_the_targets(targets: TargetSet) -> None:
    for variable in UNITS:
        assert (np.diff(bin_edges(variable, targets)) > 0).all()
    assert bin_edges("pt", targets)[[0, -1]] == pytest.approx(
        [targets.min_pt, min(targets.max_pt, 50)]
    )
    assert bin_edges("eta", targets)[[0, -1]] == pytest.approx([-targets.max_eta, targets.max_eta])


def counts(numbers: Int64, truth: Truth) -> TargetCounts:
    matches = match(numbers, truth)
    density = np.zeros(len(truth.particles))
    chosen = HEADLINE.select(truth, matches.particle_hits)
    return TargetCounts.count(
        HEADLINE, truth, matches, chosen=chosen, density=density, losses={"split": 0}
    )


def test_counts_by_hand() -> None:
    # 4 is found perfectly, 5 in two pieces (4 + 3 of 7), 6 not at all, 7 is below the pT cut.
    truth = truth_of([4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 7, 7, 7], pt=[2.0, 60.0, 1.5, 0.7])
    numbers = labels(0, 0, 0, 1, 1, 1, 1, 2, 2, 2, -1, -1, -1, 3, 3, 3)
    result = counts(numbers, truth)
    assert result.efficiency == Ratio(2, 3)
    assert result.single_majority == Ratio(2, 3)
    assert result.perfect == Ratio(1, 3)
    assert result.duplicates == Ratio(1, 3)
    assert result.fakes == Ratio(0, 3)
    pt = result.bins["pt"]
    assert pt.total.tolist() == [0, 1, 1, *[0] * 8, 1]
    assert pt.passed.tolist() == [0, 0, 1, *[0] * 8, 1]
    assert result.bins["hits"].total[:5].tolist() == [2, 0, 0, 0, 1]


def test_fakes_are_counted_by_their_majority_particle() -> None:
    # Track 0 is two of 4 and two of noise: fake. Track 1 is of 5, which is softer. Track 2 is noise.
    truth = truth_of([4, 4, 0, 0, 5, 5, 5, 0, 0, 0], pt=[2.0, 0.3])
    matches = match(labels(0, 0, 0, 0, 1, 1, 1, 2, 2, 2), truth)
    assert fakes_above(matches, np.array([True, False])) == Ratio(1, 1)
    assert fakes_above(matches, np.array([True, True])) == Ratio(1, 2)
    assert fakes_above(matches, np.array([False, False])) == Ratio(0, 0)


event_lists = st.lists(
    st.integers(1, 25).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 4), min_size=n, max_size=n),
            st.lists(st.integers(-1, 4), min_size=n, max_size=n),
        )
    ),
    min_size=1,
    max_size=4,
)


@given(event_lists)
def test_adding_events_equals_pooling_them(events: list[tuple[list[int], list[int]]]) -> None:
    parts = [counts(labels(*numbers), truth_of(made)) for made, numbers in events]
    added = parts[0]
    for part in parts[1:]:
        added = added + part
    # The same events as one, with particles and tracks of their own.
    made = [p + 10 * i if p else 0 for i, (ps, _) in enumerate(events) for p in ps]
    numbers = [t + 10 * i if t >= 0 else -1 for i, (_, ts) in enumerate(events) for t in ts]
    pooled = counts(labels(*numbers), truth_of(made))
    assert added.to_json() == pooled.to_json()


@given(event_lists)
def test_every_variable_bins_every_target(events: list[tuple[list[int], list[int]]]) -> None:
    made, numbers = events[0]
    result = counts(labels(*numbers), truth_of(made))
    for binned in result.bins.values():
        assert Ratio(int(binned.passed.sum()), int(binned.total.sum())) == result.efficiency
