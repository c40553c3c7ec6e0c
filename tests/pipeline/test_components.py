"""Track building on graphs small enough to draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackserve.errors import BundleError
from trackserve.event import NO_TRACK, ScoredGraph
from trackserve.pipeline.components import TrackBuilder, best_steps, build_tracks


def graph(hits: int, *edges: tuple[int, int, float]) -> ScoredGraph:
    """Hits with edges (inner, outer, score), sorted as the pipeline sorts them."""
    edges = tuple(sorted(edges))
    ends = np.array([e[:2] for e in edges], np.int64).reshape(-1, 2).T.copy()
    scores = np.array([e[2] for e in edges], np.float32)
    return ScoredGraph(np.zeros((hits, 3), np.float32), ends, scores)


def labels(method: str, scored: ScoredGraph, cut: float = 0.5, min_hits: int = 3) -> list[int]:
    return build_tracks(scored, TrackBuilder(method, cut, min_hits)).labels.tolist()


BOTH = pytest.mark.parametrize("method", ["components", "walk"])


@BOTH
def test_two_chains_and_a_lone_hit(method):
    chains = graph(7, (1, 2, 0.9), (2, 5, 0.9), (0, 3, 0.9), (3, 6, 0.9))
    assert labels(method, chains) == [0, 1, 1, 0, NO_TRACK, 1, 0]


@BOTH
def test_an_edge_at_the_cut_passes(method):
    chain = graph(3, (0, 1, 0.5), (1, 2, 0.5))
    assert labels(method, chain, cut=0.5) == [0, 0, 0]
    assert labels(method, chain, cut=0.51) == [NO_TRACK] * 3


@BOTH
def test_short_candidates_are_dropped_and_numbers_have_no_gap(method):
    scored = graph(6, (0, 1, 0.9), (2, 3, 0.9), (3, 5, 0.9))
    assert labels(method, scored) == [NO_TRACK, NO_TRACK, 0, 0, NO_TRACK, 0]
    assert labels(method, scored, min_hits=2) == [0, 0, 1, 1, NO_TRACK, 1]
    assert labels(method, scored, min_hits=1) == [0, 0, 1, 1, 2, 1]
    assert labels(method, scored, min_hits=4) == [NO_TRACK] * 6


@BOTH
@pytest.mark.parametrize("hits", [0, 1, 5])
def test_no_edges(method, hits):
    assert labels(method, graph(hits)) == [NO_TRACK] * hits


@BOTH
def test_a_score_that_is_not_a_number_does_not_pass(method):
    assert labels(method, graph(3, (0, 1, np.nan), (1, 2, 0.9)), cut=0.0) == [NO_TRACK] * 3


def test_crossing_tracks_merge_as_components_and_not_in_a_walk():
    # Two tracks, 0-2-4-6 and 1-3-5-7, joined by a weaker edge.
    scored = graph(
        8, (0, 2, 0.9), (2, 4, 0.9), (4, 6, 0.9), (1, 3, 0.9), (3, 5, 0.9), (5, 7, 0.9), (2, 5, 0.8)
    )
    assert labels("components", scored) == [0] * 8
    assert labels("walk", scored) == [0, 1, 0, 1, 0, 1, 0, 1]


def test_a_walk_takes_the_better_of_two_ways():
    scored = graph(5, (0, 1, 0.9), (1, 2, 0.6), (1, 3, 0.8), (3, 4, 0.9))
    assert labels("walk", scored) == [0, 0, NO_TRACK, 0, 0]


def test_a_hit_that_lost_its_best_step_takes_its_next():
    # The best way out of 0 is to 2, but 2 is reached from 1 already: to 0 remains the way to 3.
    scored = graph(5, (0, 2, 0.8), (0, 3, 0.7), (1, 2, 0.9), (2, 4, 0.9))
    assert labels("walk", scored, min_hits=2) == [0, 1, 1, 0, 1]


def test_of_equal_scores_the_first_edge_wins():
    out = graph(4, (0, 1, 0.9), (0, 2, 0.9), (0, 3, 0.9))
    assert best_steps(out.edges, out.scores).tolist() == [0]
    into = graph(4, (0, 3, 0.9), (1, 3, 0.9), (2, 3, 0.9))
    assert best_steps(into.edges, into.scores).tolist() == [0]


@st.composite
def scored_graphs(draw) -> ScoredGraph:
    """Graphs with few distinct scores, so that many are equal."""
    hits = draw(st.integers(0, 12))
    pairs = [(i, j) for i in range(hits) for j in range(i + 1, hits)]
    chosen = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    scores = st.sampled_from([0.1, 0.5, 0.7, 0.9])
    return graph(hits, *((i, j, draw(scores)) for i, j in chosen))


@given(scored_graphs(), st.sampled_from(["components", "walk"]), st.integers(1, 4))
def test_labels_say_what_they_should(scored, method, min_hits):
    found = np.array(labels(method, scored, 0.5, min_hits), np.int64)
    assert len(found) == len(scored.features)
    numbers, first, size = np.unique(found, return_index=True, return_counts=True)
    tracks = numbers != NO_TRACK
    assert (size[tracks] >= min_hits).all()
    # Numbered from 0 by their innermost hit, without gaps.
    assert numbers[tracks].tolist() == list(range(tracks.sum()))
    assert (np.diff(first[tracks]) > 0).all()


@given(scored_graphs())
def test_components_equal_a_search_from_hit_to_hit(scored):
    neighbours: dict[int, set[int]] = {i: {i} for i in range(len(scored.features))}
    for (a, b), score in zip(scored.edges.T.tolist(), scored.scores, strict=True):
        if score >= np.float32(0.5):
            neighbours[a].add(b)
            neighbours[b].add(a)
    expected, number = [NO_TRACK] * len(neighbours), 0
    for start in neighbours:
        reached, front = set(), {start}
        while front:
            reached |= front
            front = set().union(*(neighbours[i] for i in front)) - reached
        if len(reached) >= 3 and start == min(reached):
            for i in reached:
                expected[i] = number
            number += 1
    assert labels("components", scored) == expected


@given(scored_graphs())
def test_walks_are_paths_within_the_components(scored):
    kept = best_steps(scored.edges, scored.scores)
    for end in scored.edges[:, kept]:
        assert len(set(end.tolist())) == len(end)
    components = labels("components", scored, cut=0.0, min_hits=1)
    walks = labels("walk", scored, cut=0.0, min_hits=1)
    assert len(set(zip(walks, components, strict=True))) == len(set(walks))


@given(scored_graphs())
def test_a_strictly_best_edge_is_kept(scored):
    if len(scored.scores) and (scored.scores == scored.scores.max()).sum() == 1:
        assert scored.scores.argmax() in best_steps(scored.edges, scored.scores)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("magic", 0.5), "track builder 'magic' is unknown"),
        (("walk", -0.1), "cut -0.1"),
        (("walk", np.nan), "cut nan"),
        (("walk", 0.5, 0), "min_hits 0"),
    ],
)
def test_a_builder_that_makes_no_sense(settings, reason):
    with pytest.raises(BundleError, match=reason):
        TrackBuilder(*settings)
