import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_events import event_of, labels

from trackserve.errors import MissingDependencyError
from trackserve.evaluate.plots import AXES, write_plots
from trackserve.evaluate.report import Evaluation, StagedTracks, evaluate_event
from trackserve.evaluate.stages import true_edges
from trackserve.event import Tracks

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def evaluation() -> Evaluation:
    event = event_of([5] * 7 + [0] * 2 + [9] * 4, pt=[1.2, 70.0])
    assert event.truth is not None
    tracks = Tracks(labels(0, 0, 0, 0, 1, 1, 1, -1, -1, -1, -1, -1, -1))
    edges = true_edges(event.hits, event.truth, np.ones(2, np.bool_))
    return evaluate_event(
        event, StagedTracks(tracks, {"neighbours": edges, "filter": edges[:, :3]})
    )


def test_every_plot_is_written_and_nothing_beside_it(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    paths = write_plots(evaluation, tmp_path / "plots", dpi=40)
    names = {f"efficiency_{variable}.png" for variable in AXES} | {"stages.png", "losses.png"}
    assert {path.name for path in paths} == names
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    assert all(path.read_bytes().startswith(PNG) for path in paths)


def test_without_stages_there_are_no_plots_of_them(tmp_path: Path) -> None:
    result = evaluate_event(event_of([5, 5, 5]), Tracks(labels(0, 0, 0)))
    assert len(write_plots(result, tmp_path, dpi=40)) == len(AXES)


def test_no_targets_at_all_can_be_drawn(tmp_path: Path) -> None:
    result = evaluate_event(event_of([]), Tracks(labels()))
    assert len(write_plots(result, tmp_path, dpi=40)) == len(AXES)


def test_every_binned_variable_has_an_axis(evaluation: Evaluation) -> None:
    assert set(evaluation.targets["headline"].bins) == set(AXES)


def test_missing_matplotlib_is_named(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trackserve\[plot\]'"):
        write_plots(evaluation, tmp_path)


@pytest.mark.parametrize("neighbours", [0, 2])
def test_stages_without_edges_can_be_drawn(neighbours: int, tmp_path: Path) -> None:
    edges = np.array([[0, 1], [1, 2]], np.int64)
    stages = {"neighbours": edges[:, :neighbours], "filter": edges[:, :0]}
    found = StagedTracks(Tracks(labels(-1, -1, -1)), stages)
    assert (
        len(write_plots(evaluate_event(event_of([5, 5, 5]), found), tmp_path, dpi=40))
        == len(AXES) + 2
    )
