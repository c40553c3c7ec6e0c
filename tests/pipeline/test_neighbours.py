from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackserve.errors import BundleError
from trackserve.pipeline.features import FeatureColumns, canonical_order, cylindrical
from trackserve.pipeline.neighbours import DoubletCuts, neighbours

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, np.pi, 1000.0), {})
CUTS = {
    "none": DoubletCuts(),
    "slope": DoubletCuts(slope=1e-3, dphi=0.05),
    "z0": DoubletCuts(z0=150.0, dcot=0.05),
    "all": DoubletCuts(slope=2e-3, z0=300.0, dphi=0.1, dcot=0.1),
}


def random_event(seed: int, hits: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in canonical order and an embedding of them."""
    rng = np.random.default_rng(seed)
    features = rng.uniform((0.03, -1, -1), (1, 1, 1), (hits, 3)).astype(np.float32)
    features = features[canonical_order(features, COLUMNS)]
    return features, rng.normal(size=(hits, dimension)).astype(np.float32)


def brute_force(embedding, features, *, radius, limit, cuts) -> set[tuple[int, int]]:
    """The definition, pair by pair in float64."""
    r, phi, z = (a.astype(np.float64) for a in cylindrical(features, COLUMNS))
    points = embedding.astype(np.float64)

    def passes(a: int, b: int) -> bool:
        dr, turn = abs(r[b] - r[a]), abs(phi[b] - phi[a])
        turn = min(turn, 2 * np.pi - turn)
        lever = abs(z[a] * r[b] - z[b] * r[a])
        return (
            r[a] ** 2 + z[a] ** 2 != r[b] ** 2 + z[b] ** 2
            and (turn <= cuts.slope * dr + cuts.dphi or cuts.slope == np.inf)
            and (lever <= cuts.z0 * dr + cuts.dcot * r[a] * r[b] or cuts.z0 == np.inf)
        )

    edges = set()
    for i in range(len(points)):
        distance = np.sqrt(((points - points[i]) ** 2).sum(axis=1))
        near = [j for j in np.argsort(distance) if distance[j] <= radius and passes(i, j)]
        edges |= {(min(i, int(j)), max(i, int(j))) for j in near[:limit]}
    return edges


@given(
    seed=st.integers(0, 10**6),
    hits=st.integers(0, 60),
    dimension=st.integers(1, 12),
    radius=st.floats(0.1, 5),
    limit=st.integers(1, 70),
    cuts=st.sampled_from(list(CUTS.values())),
)
def test_edges_equal_the_definition(seed, hits, dimension, radius, limit, cuts):  # noqa: PLR0917
    features, embedding = random_event(seed, hits, dimension)
    how = {"radius": radius, "limit": limit, "cuts": cuts}
    edges = neighbours(embedding, features, COLUMNS, **how).edges
    found = [(int(a), int(b)) for a, b in edges.T]
    assert found == sorted(brute_force(embedding, features, **how))


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_every_cut_cuts_something_and_not_everything(cuts):
    features, embedding = random_event(1, 300, 3)
    every = neighbours(embedding, features, COLUMNS, radius=1.0, limit=50, cuts=DoubletCuts())
    kept = neighbours(embedding, features, COLUMNS, radius=1.0, limit=50, cuts=cuts)
    assert kept.edges.shape[1] > 20
    assert (kept.edges.shape[1] < every.edges.shape[1]) == (cuts != DoubletCuts())


@pytest.mark.parametrize("at_once", [1, 7, 299])
def test_blocks_and_threads_change_nothing(at_once, monkeypatch):
    features, embedding = random_event(2, 300, 4)
    how = {"radius": 1.0, "limit": 5, "cuts": CUTS["all"]}
    whole = neighbours(embedding, features, COLUMNS, **how).edges
    monkeypatch.setattr(sys.modules[neighbours.__module__], "HITS_AT_ONCE", at_once)
    monkeypatch.setattr(sys.modules[neighbours.__module__], "PAIRS_AT_ONCE", 50 * at_once)
    parts = neighbours(embedding, features, COLUMNS, **how, threads=2).edges
    np.testing.assert_array_equal(parts, whole)


def test_a_pair_exactly_at_the_radius_is_linked():
    features, _ = random_event(3, 2, 1)
    embedding = np.array([[0.0], [0.5]], np.float32)
    for radius, edges in ((0.5, [[0], [1]]), (np.nextafter(0.5, 0), [[], []])):
        found = neighbours(embedding, features, COLUMNS, radius=radius, limit=1, cuts=DoubletCuts())
        assert found.edges.tolist() == edges


def test_one_of_the_two_must_have_the_other_among_its_nearest():
    # On a line at 0, 1, 1.9, 5: each has one nearest; 1.9 is the nearest of 5 and of 1.
    features, _ = random_event(4, 4, 1)
    embedding = np.array([[0], [1], [1.9], [5]], np.float32)
    found = neighbours(embedding, features, COLUMNS, radius=9.0, limit=1, cuts=DoubletCuts())
    assert found.edges.T.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_azimuth_has_no_seam():
    features = np.array([[0.1, 0.999, 0], [0.2, -0.999, 0], [0.3, 0.0, 0]], np.float32)
    cuts = DoubletCuts(slope=1e-4)
    found = neighbours(
        np.zeros((3, 2), np.float32), features, COLUMNS, radius=1, limit=9, cuts=cuts
    )
    assert found.edges.T.tolist() == [[0, 1]]


def test_hits_at_one_distance_from_the_origin_are_not_linked():
    features = np.array([[0.3, 0.1, 0.4], [0.3, 0.2, 0.4], [0.5, 0.1, 0.5]], np.float32)
    found = neighbours(
        np.zeros((3, 2), np.float32), features, COLUMNS, radius=1, limit=9, cuts=DoubletCuts()
    )
    assert found.edges.T.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize("hits", [0, 1])
def test_too_few_hits_for_an_edge(hits):
    features, embedding = random_event(5, hits, 4)
    found = neighbours(embedding, features, COLUMNS, radius=1, limit=9, cuts=CUTS["all"])
    assert found.edges.shape == (2, 0)
    assert found.edges.dtype == np.int64


def test_a_hit_whose_embedding_is_not_finite_has_no_neighbours():
    features, embedding = random_event(6, 40, 3)
    broken = [0, 7, 39]
    embedding[broken, [0, 1, 2]] = [np.nan, np.inf, -np.inf]
    found = neighbours(embedding, features, COLUMNS, radius=9, limit=50, cuts=DoubletCuts())
    assert found.edges.shape[1] == 37 * 36 / 2
    assert not np.isin(broken, found.edges).any()
    assert len(found.features) == 40
    embedding[:] = np.nan
    nothing = neighbours(embedding, features, COLUMNS, radius=9, limit=50, cuts=DoubletCuts())
    assert nothing.edges.shape == (2, 0)


def test_keys_of_pairs_of_many_hits_do_not_overflow():
    """A million hits have 10^12 pairs, beyond 32 bits: the last two of them are still linked."""
    hits = 70_000
    features = np.zeros((hits, 3), np.float32)
    features[:, 0] = np.linspace(0.03, 1, hits)
    embedding = np.arange(hits, dtype=np.float32)[:, None]
    found = neighbours(embedding, features, COLUMNS, radius=1.0, limit=2, cuts=DoubletCuts())
    np.testing.assert_array_equal(found.edges, [np.arange(hits - 1), np.arange(1, hits)])


@pytest.mark.parametrize(
    "cuts", [{"slope": 0}, {"slope": np.nan}, {"z0": -1}, {"dphi": -0.1}, {"dcot": np.nan}]
)
def test_cuts_that_make_no_sense(cuts):
    with pytest.raises(BundleError, match="expected positive slope and z0, and no negative number"):
        DoubletCuts(**cuts)
