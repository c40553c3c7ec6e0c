"""What is written of a training while it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from trackserve.training.progress import progress_writers

if TYPE_CHECKING:
    from pathlib import Path


def train_a_little(folder: Path) -> None:
    """Write the progress of two networks, the second in two goes."""
    for network, steps in (("filter", (0, 1)), ("gnn", (0,)), ("gnn", (1,))):
        with progress_writers(folder, network) as writers:
            for step in steps:
                for writer in writers:
                    writer.write(step, {"event": 5, "loss": 1.0 / (step + 1)})


def test_every_update_is_a_line_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train_a_little(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["network"], line["step"], line["loss"]) for line in lines] == [
        ("filter", 0, 1.0), ("filter", 1, 0.5), ("gnn", 0, 1.0), ("gnn", 1, 0.5)
    ]  # fmt: skip
    assert all(line["event"] == 5 for line in lines)


def test_tensorboard_shows_the_losses(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_a_little(tmp_path)
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(each.step, each.value) for each in found.Scalars("filter/loss")] == [(0, 1), (1, 0.5)]


def test_mlflow_has_one_run_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train_a_little(tmp_path)
    client = tracking.MlflowClient((tmp_path / "runs").as_uri())
    experiment = client.get_experiment_by_name("trackserve").experiment_id
    (run,) = client.search_runs([experiment])
    history = client.get_metric_history(run.info.run_id, "gnn/loss")
    assert [(each.step, each.value) for each in history] == [(0, 1), (1, 0.5)]
