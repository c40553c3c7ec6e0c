from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from studies.physics import throughput
from trackserve.data import find_events
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError
from trackserve.evaluate.report import evaluate
from trackserve.event import Clusters
from wedge import write_wedge

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle


@pytest.mark.parametrize(("seconds", "score"), [(0.56, 1.1727), (1.11, 1.1145)])
def test_the_score_is_that_of_the_challenge(seconds: float, score: float) -> None:
    """Mikado and fastrack, as the challenge's leaderboard has them."""
    assert throughput.throughput_score(0.944, seconds) == pytest.approx(score, abs=1.5e-3)


def test_there_is_no_score_for_half_of_the_accuracy_nor_for_ten_minutes() -> None:
    assert throughput.throughput_score(0.5, 1.0) == 0.0
    assert throughput.throughput_score(0.2, 1.0) == 0.0
    assert throughput.throughput_score(1.0, 600.0) == 0.0


def test_hits_that_fastrack_leaves_over_are_on_no_track() -> None:
    labels = throughput.without_rest(np.array([7, 2, 9, 2, 9, 7, 4], np.int32))
    assert labels.tolist() == [2, 0, -1, 0, -1, 2, 1]
    assert labels.dtype == np.int64


def test_two_cells_span_the_cluster() -> None:
    lengths = np.array([[3, 1], [5, 0]], np.int32)
    clusters = Clusters(np.array([4, 1], np.int32), *lengths, np.ones(2, np.float32))
    owner, u, v = throughput.corner_cells(np.array([1, 2], np.int32), clusters)
    assert owner.tolist() == [1, 1, 2, 2]
    assert u.tolist() == [0, 2, 0, 0]
    assert v.tolist() == [0, 4, 0, 0]
    assert not any(each.any() for each in throughput.corner_cells(owner, None)[1:])


def test_a_folder_without_the_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="build fastrack"):
        throughput.Fastrack(tmp_path)


@pytest.mark.filterwarnings("ignore:the reference engine runs")  # the tiny bundle's networks
def test_a_bundle_has_the_score_that_evaluate_gives(tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder, out = tmp_path / "events", tmp_path / "throughput.json"
    write_wedge(folder, 1, half=0.05)
    throughput.main([str(folder), "--bundle", str(tiny_bundle.path), "--out", str(out)])

    record = json.loads(out.read_text())
    (found,) = record["samples"]["real"]["finders"].values()
    whole = [source.read() for source in find_events(folder)]
    expected = evaluate(whole, ReferencePipeline(tiny_bundle).find_tracks)
    assert found["trackml_score"] == pytest.approx(expected.scores[0])
    assert found["seconds"] > 0
    assert throughput.throughput_table(record).count("\n") == 2
