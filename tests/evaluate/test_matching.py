from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_events import labels, truth_of

from trackserve.errors import InputError
from trackserve.evaluate.matching import Matches, match, particle_rows
from trackserve.event import Int64, Truth


def found(matches: Matches) -> tuple[list[bool], list[bool], list[bool]]:
    return (
        matches.particle_matched.tolist(),
        matches.particle_single_majority.tolist(),
        matches.particle_perfect.tolist(),
    )


def fakes(matches: Matches) -> int:
    return int((~matches.track_pure).sum())


def test_empty_event() -> None:
    matches = match(labels(), truth_of([]))
    assert len(matches.track_hits) == 0
    assert len(matches.particle_hits) == 0
    assert matches.trackml_score == 0


def test_no_tracks() -> None:
    matches = match(labels(-1, -1, -1, -1), truth_of([5, 5, 5, 5]))
    assert found(matches) == ([False], [False], [False])
    assert len(matches.track_hits) == 0


def test_all_noise_on_a_track_is_a_fake() -> None:
    matches = match(labels(0, 0, 0, -1), truth_of([0, 0, 0, 0]))
    assert matches.track_hits.tolist() == [3]
    assert matches.track_particle.tolist() == [-1]
    assert fakes(matches) == 1
    assert matches.trackml_score == 0


def test_perfect() -> None:
    matches = match(labels(0, 0, 0, 0, 1, 1, 1, 1), truth_of([5, 5, 5, 5, 9, 9, 9, 9]))
    assert found(matches) == ([True, True], [True, True], [True, True])
    assert fakes(matches) == 0
    assert matches.duplicates.tolist() == [0, 0]
    assert matches.trackml_score == pytest.approx(1)


def test_one_hit_swapped_is_matched_but_not_perfect() -> None:
    matches = match(labels(0, 0, 0, 1, 0, 1, 1, 1), truth_of([5, 5, 5, 5, 9, 9, 9, 9]))
    assert found(matches) == ([True, True], [True, True], [False, False])
    assert matches.track_shared.tolist() == [3, 3]
    assert matches.trackml_score == pytest.approx(6 / 8)


def test_exactly_half_is_no_majority() -> None:
    # Two of four hits of the track, and two of four hits of each particle.
    matches = match(labels(0, 0, -1, -1, 0, 0, -1, -1), truth_of([5, 5, 5, 5, 9, 9, 9, 9]))
    assert found(matches)[0] == [False, False]
    assert fakes(matches) == 1


def test_two_particles_merged_equally_are_a_fake() -> None:
    matches = match(labels(0, 0, 0, 0, 0, 0), truth_of([5, 5, 5, 9, 9, 9]))
    assert found(matches) == ([False, False], [False, False], [False, False])
    assert fakes(matches) == 1


def test_merged_with_a_shorter_particle_finds_the_longer_one() -> None:
    matches = match(labels(0, 0, 0, 0, 0, 0, 0), truth_of([5, 5, 5, 5, 9, 9, 9]))
    assert found(matches) == ([True, False], [True, False], [False, False])
    assert fakes(matches) == 0


def test_split_in_halves_is_single_majority_only_and_one_duplicate() -> None:
    matches = match(labels(0, 0, 0, 1, 1, 1), truth_of([5] * 6))
    assert found(matches) == ([False], [True], [False])
    assert fakes(matches) == 0
    assert matches.duplicates.tolist() == [1]
    assert matches.trackml_score == 0


def test_split_unequally_is_matched_once_and_one_duplicate() -> None:
    matches = match(labels(0, 0, 0, 0, 1, 1, 1), truth_of([5] * 7))
    assert found(matches) == ([True], [True], [False])
    assert matches.duplicates.tolist() == [1]
    assert matches.trackml_score == pytest.approx(4 / 7)


def test_noise_dilutes_a_track() -> None:
    truth = truth_of([5, 5, 5, 0, 0, 0])
    assert fakes(match(labels(0, 0, 0, 0, 0, -1), truth)) == 0
    assert fakes(match(labels(0, 0, 0, 0, 0, 0), truth)) == 1


def test_two_hits_are_no_track() -> None:
    matches = match(labels(0, 0, -1, 1, 1, 1), truth_of([5, 5, 5, 9, 9, 9]))
    assert matches.track_hits.tolist() == [3]
    assert found(matches)[0] == [False, True]
    assert matches.particle_shared.tolist() == [0, 3]


def test_score_adds_the_weights_of_shared_hits_only() -> None:
    truth = truth_of([5, 5, 5, 5, 9, 9, 9], weights=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    assert match(labels(0, 0, 0, -1, 0, 1, 1), truth).trackml_score == pytest.approx(0.7)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="3 labels for 2 hits; expected one label for each hit"):
        match(labels(0, 0, 0), truth_of([5, 5]))


def test_rows_of_particles_in_any_order() -> None:
    truth = truth_of([9, 5, 0, 9])
    assert particle_rows(truth).tolist() == [1, 0, -1, 1]


Labelled = tuple[list[int], list[int]]
events = st.integers(0, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(-1, 4), min_size=n, max_size=n),
    )
)


def summary(numbers: Int64, truth: Truth) -> tuple[object, ...]:
    matches = match(numbers, truth)
    return (
        *found(matches),
        fakes(matches),
        len(matches.track_hits),
        matches.duplicates.tolist(),
        matches.particle_shared.tolist(),
        round(matches.trackml_score, 12),
    )


@given(events, st.randoms(use_true_random=False))
def test_renaming_tracks_and_permuting_hits_change_nothing(event: Labelled, random: object) -> None:
    made, numbers = event
    names = random.sample(range(1000), 5)  # type: ignore[attr-defined]
    order = random.sample(range(len(made)), len(made))  # type: ignore[attr-defined]
    renamed = labels(*(names[numbers[row]] if numbers[row] >= 0 else -1 for row in order))
    permuted = truth_of([made[row] for row in order])
    assert summary(renamed, permuted) == summary(labels(*numbers), truth_of(made))


@given(events)
def test_agrees_with_sets_of_hits(event: Labelled) -> None:
    """The definition, word by word, with Python's sets."""
    made, numbers = event
    tracks = [{r for r, n in enumerate(numbers) if n == name} for name in range(5)]
    tracks = [track for track in tracks if len(track) >= 3]
    ids = sorted(set(made) - {0})
    particles = [{r for r, p in enumerate(made) if p == name} for name in ids]
    truth = truth_of(made)
    matches = match(labels(*numbers), truth)

    pure = [[2 * len(t & p) > len(t) for t in tracks] for p in particles]
    double = [
        [yes and 2 * len(t & p) > len(p) for yes, t in zip(row, tracks, strict=True)]
        for row, p in zip(pure, particles, strict=True)
    ]
    assert matches.particle_matched.tolist() == [any(row) for row in double]
    assert matches.particle_single_majority.tolist() == [any(row) for row in pure]
    assert matches.particle_perfect.tolist() == [p in tracks for p in particles]
    assert matches.duplicates.tolist() == [max(sum(row) - 1, 0) for row in pure]
    assert fakes(matches) == len(tracks) - sum(map(sum, pure))
    score = sum(
        truth.weight[list(t & p)].sum()
        for row, p in zip(double, particles, strict=True)
        for yes, t in zip(row, tracks, strict=True)
        if yes
    )
    assert matches.trackml_score == pytest.approx(score)


def test_double_majority_never_beats_single_and_perfect_never_beats_double() -> None:
    random = np.random.default_rng(3)
    made = random.integers(0, 300, 4000)
    noisy = np.where(random.random(4000) < 0.3, random.integers(0, 300, 4000), made)
    matches = match(noisy, truth_of(made.tolist()))
    counts = [
        int(getattr(matches, name).sum())
        for name in ("particle_perfect", "particle_matched", "particle_single_majority")
    ]
    assert all(low <= high for low, high in pairwise(counts))
    assert counts[1] > 0
