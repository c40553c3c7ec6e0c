import numpy as np
import pytest
from tiny_events import event_of, labels, particles

from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import match
from trackserve.evaluate.stages import EdgeCounts, losses, true_edges
from trackserve.event import Event, Hits, Int64, Truth


def edges(*pairs: tuple[int, int]) -> Int64:
    return np.array(pairs, np.int64).reshape(-1, 2).T


def pairs(array: Int64) -> set[tuple[int, int]]:
    assert array.dtype == np.int64
    return {(int(a), int(b)) for a, b in array.T}


def everyone(event: Event) -> tuple[Hits, Truth, np.ndarray]:
    assert event.truth is not None
    return event.hits, event.truth, np.ones(len(event.truth.particles), np.bool_)


def test_true_edges_join_consecutive_hits_whatever_their_rows() -> None:
    event = event_of([5, 9, 5, 0, 9, 5])
    assert pairs(true_edges(*everyone(event))) == {(0, 2), (2, 5), (1, 4)}


def test_true_edges_of_some_particles_only() -> None:
    hits, truth, _ = everyone(event_of([5, 9, 5, 0, 9, 5]))
    assert pairs(true_edges(hits, truth, np.array([False, True]))) == {(1, 4)}


def test_no_true_edges_without_hits_or_with_one() -> None:
    for made in ([], [5], [0, 0]):
        assert true_edges(*everyone(event_of(made))).shape == (2, 0)


def test_true_edges_start_from_the_production_point_and_point_away_from_the_origin() -> None:
    # Produced at x = 30 mm and flying inwards: the first step is 30 -> 20, the edge 20 -> 30.
    x = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [30, 0, 0]], np.float32)[[2, 0, 3, 1]]
    truth = Truth(
        np.full(4, 5), np.zeros(4), particles([5], vertex=(31.0, 0.0, 0.0), primary=False)
    )
    found = true_edges(Hits.from_positions(x), truth, np.array([True]))
    assert pairs(found) == {(1, 3), (3, 0), (0, 2)}


def test_order_is_by_distance_from_the_vertex_not_from_the_origin() -> None:
    # From a vertex at z = 100 mm: 8 mm away at z = 92 comes before 20 mm away at z = 120.
    position = np.array([[0, 5, 92], [0, 5, 120], [0, 9, 150]], np.float32)
    truth = Truth(np.full(3, 5), np.zeros(3), particles([5], vertex=(0.0, 0.0, 100.0)))
    found = true_edges(Hits.from_positions(position), truth, np.array([True]))
    assert pairs(found) == {(0, 1), (1, 2)}
    truth = Truth(np.full(3, 5), np.zeros(3), particles([5], vertex=(0.0, 0.0, 110.0)))
    found = true_edges(Hits.from_positions(position), truth, np.array([True]))
    assert pairs(found) == {(0, 1), (0, 2)}


def test_edge_counts_by_hand() -> None:
    hits, truth, _ = everyone(event_of([5, 5, 5, 9, 9, 0, 0]))
    wanted = true_edges(hits, truth, np.array([True, False]))  # 0-1 and 1-2
    graph = edges((1, 0), (0, 2), (3, 4), (2, 3), (5, 6))  # true, same, other's, wrong, noise
    counts = EdgeCounts.count(graph, truth, wanted)
    assert counts.efficiency == Ratio(1, 2)
    assert counts.purity == Ratio(3, 5)
    assert counts.target_purity == Ratio(1, 5)
    assert counts.edges == 5
    pooled = counts + EdgeCounts.count(edges(), truth, wanted)
    assert pooled.efficiency == Ratio(1, 4)
    assert pooled.to_json(events=2)["edges_per_event"] == 2.5


@pytest.mark.parametrize(
    ("neighbours", "filtered", "passed", "numbers", "fate"),
    [
        # Of 5's hits 0 1 2 3, three must hang together.
        ([(0, 1), (2, 3)], [(0, 1)], [], labels(-1, -1, -1, -1, -1, -1, -1, -1), "no_edge"),
        ([(0, 1), (1, 4), (4, 2), (2, 3)], [], [], labels(*[-1] * 8), "no_edge"),
        ([(0, 1), (1, 2)], [(0, 1), (2, 3)], [], labels(*[-1] * 8), "cut_by_filter"),
        ([(0, 2), (2, 3)], [(0, 2), (2, 3)], [(2, 3)], labels(*[-1] * 8), "cut_by_gnn"),
        ([(0, 1), (1, 2)], [(1, 0), (2, 1)], [(1, 0), (2, 1)], labels(*[-1] * 8), "split"),
        (
            [(0, 1), (1, 2), (2, 3)],
            [(0, 1), (1, 2), (2, 3)],
            [(0, 1), (1, 2), (2, 3)],
            labels(0, 0, 0, 0, 0, 0, 0, 0),
            "merged",
        ),
    ],
)
def test_each_lost_target_dies_once(
    neighbours: list[tuple[int, int]],
    filtered: list[tuple[int, int]],
    passed: list[tuple[int, int]],
    numbers: Int64,
    fate: str,
) -> None:
    _, truth, _ = everyone(event_of([5, 5, 5, 5, 9, 9, 9, 9]))
    stages = {
        "neighbours": edges(*neighbours),
        "filter": edges(*filtered),
        "gnn": edges(*passed),
    }
    died = losses(match(numbers, truth), truth, np.array([True, False]), stages)
    assert list(died) == ["no_edge", "cut_by_filter", "cut_by_gnn", "split", "merged"]
    assert {name for name, count in died.items() if count} == {fate}
    assert sum(died.values()) == 1


def test_found_targets_are_not_lost_even_without_edges_of_their_own() -> None:
    _, truth, chosen = everyone(event_of([5, 5, 5]))
    died = losses(match(labels(0, 0, 0), truth), truth, chosen, {"neighbours": edges()})
    assert died == {"no_edge": 0, "split": 0, "merged": 0}


def test_losses_without_stages() -> None:
    _, truth, chosen = everyone(event_of([5, 5, 5, 5, 9, 9, 9, 9]))
    assert losses(match(labels(*[-1] * 8), truth), truth, chosen, {}) == {"split": 2, "merged": 0}


def test_pieces_are_found_in_long_chains() -> None:
    made = [5] * 60
    _, truth, chosen = everyone(event_of(made))
    random = np.random.default_rng(5)
    chain = random.permutation(60)
    graph = np.stack([chain[:-1], chain[1:]])
    nothing = match(labels(*[-1] * 60), truth)
    assert losses(nothing, truth, chosen, {"neighbours": graph})["split"] == 1
    graph = np.delete(graph, 29, axis=1)  # two pieces of exactly half
    assert losses(nothing, truth, chosen, {"neighbours": graph})["no_edge"] == 1
