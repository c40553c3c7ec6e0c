from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_events import event_of

from trackserve.data.submission import read_tracks
from trackserve.errors import InputError
from trackserve.evaluate.report import evaluate_event
from trackserve.evaluate.submission import evaluate_tracks
from trackserve.event import Event, Hits, Tracks

EVENT = event_of([5, 5, 5, 0, 9, 9, 9])  # number 1, hits 0 to 6


@pytest.fixture
def read(tmp_path):
    def read(*rows: str, header: str = "event_id,hit_id,track_id"):
        path = tmp_path / "tracks.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return read_tracks(path)

    return read


def test_tracks_are_joined_by_hit_id_in_any_order(read):
    rows = ["1,6,40", "2,0,1", "1,0,-7", "1,5,40", "1,1,0", "1,4,40", "1,3,-1", "1,2,0"]
    tracks, absent = read(*rows).tracks_of(EVENT)
    assert tracks.labels.tolist() == [-1, 0, 0, -1, 1, 1, 1]
    assert absent == 0


def test_hits_without_a_row_are_on_no_track_and_counted(read):
    tracks, absent = read("1,4,3", "1,6,3").tracks_of(EVENT)
    assert tracks.labels.tolist() == [-1, -1, -1, -1, 0, -1, 0]
    assert absent == 5


def test_columns_in_another_order_and_compressed(tmp_path):
    path = tmp_path / "tracks.csv.gz"
    path.write_bytes(gzip.compress(b"track_id,event_id,hit_id\n3,1,0\n3,1,1\n"))
    assert read_tracks(path).tracks_of(EVENT)[0].labels.tolist() == [0, 0] + [-1] * 5


def test_numbers_of_64_bits(read):
    low, high = -(2**63), 2**63 - 1
    tracks, _ = read(f"1,0,{high}", f"1,1,{low}", f"1,2,{high - 1}").tracks_of(EVENT)
    assert tracks.labels.tolist() == [1, -1, 0, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["1,0,1", "1,0,1"], "row 2: hit 0 of event 1 was listed before, in row 1"),
        (["1,0,1", "1,one,1"], "row 2: hit_id is 'one'; expected a whole number"),
        (["1,0,1", "1,1"], "row 2 has 2 columns; expected 3"),
        (["1,0,1", "1,1,1.5"], "row 2: track_id is '1.5'; expected a whole number"),
    ],
)
def test_a_file_that_cannot_be_used(read, rows, reason):
    with pytest.raises(InputError, match=reason):
        read(*rows)


def test_a_missing_column_and_file(read, tmp_path):
    with pytest.raises(InputError, match=r"no column track_id \(did you mean track\?\)"):
        read("1,0,1", header="event_id,hit_id,track")
    with pytest.raises(InputError, match="cannot be read"):
        read_tracks(tmp_path / "nowhere.csv")


def test_a_hit_that_the_event_does_not_have(read):
    with pytest.raises(InputError, match="event 1 has no hit 99; was the file made from another"):
        read("1,0,1", "1,99,1").tracks_of(EVENT)


def test_an_event_that_the_file_does_not_have(read):
    with pytest.raises(InputError, match="has no tracks of event 1; it has events 2, 5"):
        read("5,0,1", "2,0,1").tracks_of(EVENT)
    with pytest.raises(InputError, match="it has events none"):
        read().tracks_of(EVENT)


def test_an_event_without_hits_needs_no_row(read):
    nothing = Event(1, Hits.from_positions(np.zeros((0, 3))))
    tracks, absent = read().tracks_of(nothing)
    assert (len(tracks.labels), absent) == (0, 0)


def test_evaluation_equals_that_of_the_tracks_themselves(read):
    labels = np.array([0, 0, 0, -1, 1, 1, -1])
    rows = [f"1,{hit},{track}" for hit, track in enumerate(labels)]
    result, absent = evaluate_tracks([EVENT, EVENT], read(*rows))
    once = evaluate_event(EVENT, Tracks(labels))
    assert result.to_json() == (once + once).to_json()
    assert absent == 0
    assert evaluate_tracks([EVENT], read(*rows[:-1]))[1] == 1
    with pytest.raises(InputError, match="no event to evaluate"):
        evaluate_tracks([], read(*rows))


@given(st.lists(st.integers(-3, 9), min_size=7, max_size=7), st.permutations(range(7)))
def test_grouping_is_kept(tmp_path_factory, numbers, order):
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    rows = [f"1,{i},{numbers[i]}" for i in order]
    path.write_text("\n".join(["event_id,hit_id,track_id", *rows]))
    found = read_tracks(path).tracks_of(EVENT)[0].labels
    for i in range(7):
        assert (found[i] == -1) == (numbers[i] < 0)
        for j in range(7):
            together = numbers[i] == numbers[j] and numbers[i] >= 0
            assert (found[i] == found[j] != -1) == together
