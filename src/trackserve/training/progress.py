"""What a training writes while it runs: a file of JSON lines, and what TensorBoard and MLflow read.

TensorBoard is used where it is installed, MLflow where ``MLFLOW_TRACKING_URI`` is set, too; neither is
needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from trackserve.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EXPERIMENT = "trackserve"
"""MLflow's name for all trainings."""


class Writer(Protocol):
    """Takes the metrics of one update of a network."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write them."""

    def close(self) -> None:
        """End the file or the run."""


@contextmanager
def progress_writers(folder: Path, network: str) -> Iterator[list[Writer]]:
    """Yield what writes the progress of a network's training; a training that goes on adds to it.

    ``folder/metrics.jsonl`` has a line an update. TensorBoard's files are in ``folder/tensorboard``.
    MLflow has a run of the training at ``MLFLOW_TRACKING_URI``.
    """
    writers: list[Writer] = [_JsonLines(folder / "metrics.jsonl", network)]
    if importlib.util.find_spec("tensorboard") is not None:
        writers.append(_TensorBoard(folder / "tensorboard", network))
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if server and importlib.util.find_spec("mlflow") is not None:
        writers.append(_MLflow(server, folder, network))
    try:
        yield writers
    finally:
        for writer in writers:
            writer.close()


class _JsonLines:
    def __init__(self, path: Path, network: str) -> None:
        self._network = network
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        line = json.dumps({"network": self._network, "step": step, **metrics})
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _TensorBoard:
    def __init__(self, folder: Path, network: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._network = network
        self._summary: Any = SummaryWriter(str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._summary.add_scalar(f"{self._network}/{name}", value, step)

    def close(self) -> None:
        self._summary.close()


class _MLflow:
    """One run a training: its id is kept beside the checkpoints, so that a resumed training finds it."""

    def __init__(self, server: str, folder: Path, network: str) -> None:
        from mlflow.tracking import MlflowClient

        self._network = network
        self._client = MlflowClient(server)
        note = folder / "mlflow_run"
        if not note.is_file():
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = (
                self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            )
            tags = {"mlflow.runName": folder.name.removesuffix(".training")}
            write_text(note, self._client.create_run(experiment, tags=tags).info.run_id)
        self._run = note.read_text(encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run, f"{self._network}/{name}", value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)
