"""The types that cross stage boundaries refuse what they can't be."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_bundle import straight_tracks
from trackserve.errors import InputError, MissingDependencyError, TrackserveError
from trackserve.event import (
    WIRE_COLUMNS,
    Clusters,
    Event,
    Graph,
    Hits,
    Modules,
    Particles,
    ScoredGraph,
    Tracks,
    Truth,
)
from trackserve.track_table import TRACK_COLUMNS, TrackTable

HITS = straight_tracks(tracks=2)
FEATURES = np.zeros((4, 3), np.float32)


def refused(make, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)) as raised:
        make()
    assert isinstance(raised.value, TrackserveError)


def hits(n: int = 3, **changes: object) -> Hits:
    columns = {"hit_id": np.arange(n), **{c: np.zeros(n, np.float32) for c in "xyz"}}
    return Hits(**(columns | changes))  # type: ignore[arg-type]


def particles(n: int = 2, **changes: object) -> Particles:
    numbers = {c: np.ones(n) for c in ("vx", "vy", "vz", "px", "py", "pz", "q")}
    columns = {"particle_id": np.arange(1, n + 1), **numbers, "primary": np.ones(n, np.bool_)}
    return Particles(**(columns | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("x", np.zeros(3), "Hits.x is float64 [3]; expected a numpy array of float32"),
        ("x", np.zeros((3, 1), np.float32), "Hits.x is float32 [3, 1]; expected"),
        ("x", [0.0, 0.0, 0.0], "Hits.x is list; expected"),
        ("x", np.zeros(4, np.float32), "Hits.x has 4 entries; expected 3, as the other columns"),
        (
            "hit_id",
            np.zeros(3, np.int32),
            "Hits.hit_id is int32 [3]; expected a numpy array of int64",
        ),
        ("hit_id", np.array([4, 7, 4]), "hit id 4 occurs more than once"),
        (
            "y",
            np.float32([0, np.nan, 0]),
            "hit row 1: y is nan; every hit needs finite x, y, z in mm",
        ),
        ("z", np.float32([0, 0, -np.inf]), "hit row 2: z is -inf; every hit needs finite"),
    ],
)
def test_columns_of_hits_that_do_not_fit(column, value, reason):
    refused(lambda: hits(**{column: value}), reason)


def test_parts_of_hits_that_do_not_fit():
    two = np.zeros(2, np.int32)
    refused(lambda: hits(modules=Modules(two, two, two)), "Modules describes 2 hits; expected 3")
    clusters = Clusters(two, two, two, np.zeros(2, np.float32))
    refused(lambda: hits(clusters=clusters), "Clusters describes 2 hits; expected 3")
    refused(lambda: Modules(two, two, two[:1]), "Modules.module_id has 1 entries; expected 2")


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.uint8])
def test_hits_from_positions(kind):
    made = Hits.from_positions(np.arange(6).reshape(2, 3).astype(kind))
    assert made.hit_id.tolist() == [0, 1]
    assert made.table(("z", "x")).tolist() == [[2, 0], [5, 3]]


@pytest.mark.parametrize(
    "positions",
    [
        np.zeros((3, 2)),
        np.zeros(3),
        np.zeros((1, 3), complex),
        np.zeros((1, 3), object),
        [["a"] * 3],
    ],
)
def test_positions_that_do_not_fit(positions):
    refused(
        lambda: Hits.from_positions(positions), "expected numbers of shape [N, 3]: x, y, z in mm"
    )


def test_positions_too_large_for_float32():
    refused(lambda: Hits.from_positions(np.full((1, 3), 1e300)), "hit row 0: x is inf")


def test_a_table_has_the_columns_that_were_asked_for():
    assert HITS.clusters is not None
    table = HITS.table(WIRE_COLUMNS)
    assert (table.dtype, table.shape) == (np.float32, (20, 10))
    np.testing.assert_array_equal(table[:, 9], HITS.clusters.charge)
    assert HITS.table(()).shape == (20, 0)


def test_a_table_of_columns_that_are_not_there():
    bare = Hits.from_positions(np.zeros((2, 3)))
    assert bare.table(("x", "charge"), {"charge": 3.0}).tolist() == [[0, 3], [0, 3]]
    refused(lambda: bare.table(("charge",)), "these hits have no column 'charge'")
    refused(lambda: bare.table(("charge",), {"cells": 1}), "these hits have no column 'charge'")
    refused(lambda: HITS.table(("hit_id",)), "these hits have no column 'hit_id'")
    refused(lambda: HITS.table(("select",)), "these hits have no column 'select'")


@given(st.lists(st.integers(0, 19), unique=True))
def test_selected_hits_keep_all_that_is_known_of_them(rows):
    chosen = HITS.select(np.array(rows, np.int64))
    np.testing.assert_array_equal(chosen.hit_id, HITS.hit_id[rows])
    np.testing.assert_array_equal(chosen.table(WIRE_COLUMNS), HITS.table(WIRE_COLUMNS)[rows])


def test_selecting_by_a_mask():
    mask = HITS.x > 0
    assert HITS.select(mask).hit_id.tolist() == HITS.hit_id[mask].tolist()


@pytest.mark.parametrize(
    "edges", [np.zeros((3, 2), np.int64), np.zeros((2, 1), np.int32), [[0], [1]]]
)
def test_edges_that_do_not_fit(edges):
    refused(lambda: Graph(FEATURES, edges), "expected int64 of shape [2, E]")


def test_edges_that_point_nowhere():
    for edges in ([[0], [4]], [[-1], [2]]):
        refused(lambda e=edges: Graph(FEATURES, np.array(e)), "points outside the 4 hits")
    assert Graph(np.zeros((0, 3), np.float32), np.empty((2, 0), np.int64)).edges.shape == (2, 0)
    refused(
        lambda: Graph(np.zeros((4, 3)), np.empty((2, 0), np.int64)), "expected float32 of shape"
    )


def test_scores_that_do_not_fit():
    edges = np.array([[0], [1]])
    refused(
        lambda: ScoredGraph(FEATURES, edges, np.zeros(2, np.float32)), "has 2 entries; expected 1"
    )
    refused(lambda: ScoredGraph(FEATURES, edges, np.zeros(1)), "ScoredGraph.scores is float64")


@pytest.mark.parametrize("labels", [[0, 2], [1], [-2, 0], [-5]])
def test_labels_with_gaps_or_below_minus_one(labels):
    refused(lambda: Tracks(np.array(labels)), "must number the tracks 0, 1, 2, ... without gaps")


def test_the_number_of_tracks():
    for labels, count in (([], 0), ([-1, -1], 0), ([1, -1, 0, 1], 2)):
        assert len(Tracks(np.array(labels, np.int64))) == count
    refused(lambda: Tracks(np.zeros(2, np.int32)), "Tracks.labels is int32")


def test_truth_of_particles_that_are_not_there():
    weight = np.zeros(3)
    refused(
        lambda: Truth(np.array([1, 0, 7]), weight, particles()),
        "hit row 2: particle id 7 is not among the particles",
    )
    truth = Truth(np.array([1, 0, 2]), weight, particles())
    refused(lambda: Event(5, hits(2), truth), "event 5: truth describes 3 hits; expected 2")
    refused(lambda: particles(particle_id=np.array([3, 3])), "a particle id occurs more than once")


def test_momenta_along_and_across_the_beam_line():
    some = particles(
        3, px=np.float64([3, 0, 0]), py=np.float64([4, 0, 0]), pz=np.float64([0, 2, -2])
    )
    assert some.pt.tolist() == [5, 0, 0]
    assert some.eta.tolist() == [0, np.inf, -np.inf]
    assert particles(1, px=np.zeros(1), py=np.zeros(1), pz=np.zeros(1)).eta.tolist() == [0]
    assert particles(1).production_radius == pytest.approx([2**0.5])


def fitted_tracks() -> Tracks:
    """Five hits of three tracks, with made-up parameters."""
    matrix = np.arange(3 * len(TRACK_COLUMNS), dtype=np.float32).reshape(3, -1)
    labels = np.array([2, -1, 0, 2, 1, 0, 0])
    return Tracks(labels, TrackTable.from_matrix(matrix))


def test_tracks_as_lists_of_hits():
    lists = fitted_tracks().hits()
    assert [rows.tolist() for rows in lists] == [[2, 5, 6], [4], [0, 3]]
    assert Tracks(np.full(4, -1)).hits() == Tracks(np.empty(0, np.int64)).hits() == []


@given(st.lists(st.integers(0, 5)))
def test_the_lists_of_hits_are_the_labels(numbers):
    labels = np.unique(np.array([0, *numbers]), return_inverse=True)[1] - 1
    again = np.full(len(labels), -1)
    for track, rows in enumerate(Tracks(labels).hits()):
        again[rows] = track
    np.testing.assert_array_equal(again, labels)


def test_tracks_as_columns():
    columns = fitted_tracks().columns()
    assert list(columns)[:3] == ["track_id", "hits", "pt"]
    assert set(columns) == {"track_id", *TRACK_COLUMNS}
    assert (columns["track_id"].tolist(), columns["hits"].tolist()) == ([0, 1, 2], [3, 1, 2])
    assert columns["pt"].tolist() == [0, 14, 28]
    assert Tracks(np.array([0, 0])).columns().keys() == {"track_id", "hits"}


def test_tracks_as_an_awkward_array():
    awkward = pytest.importorskip("awkward")
    array = fitted_tracks().to_awkward()
    assert array.hits.to_list() == [[2, 5, 6], [4], [0, 3]]
    assert array[array.pt > 10].track_id.to_list() == [1, 2]
    assert set(array.fields) == {"track_id", *TRACK_COLUMNS}
    assert len(Tracks(np.full(4, -1)).to_awkward()) == 0
    assert isinstance(array, awkward.Array)


def test_without_awkward_what_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "awkward", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trackserve\[root\]'"):
        fitted_tracks().to_awkward()


def test_some_of_the_tracks():
    tracks = fitted_tracks()
    some = tracks.select(np.array([True, False, True]))
    assert some.labels.tolist() == [1, -1, 0, 1, -1, 0, 0]
    assert some.parameters.pt.tolist() == [0, 28]
    assert len(tracks.select(np.zeros(3, bool))) == 0
    refused(lambda: tracks.select(np.array([0, 2])), "expected bool [3], one a track")
    assert repr(some) == "<2 tracks in 7 hits, with parameters>"
