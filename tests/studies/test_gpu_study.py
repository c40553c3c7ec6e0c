"""The program that measures a GPU runs whole in Triton's interpreter; the prediction follows from its counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from typing import TYPE_CHECKING

from studies.gpu.measure import MEASURED, Plan, run
from studies.gpu.model import CARDS, RESULT, device_time, predict, scaled
from studies.record import ROOT
from tiny_bundle import write_tiny_bundle
from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_prediction_is_that_of_its_counts():
    record = json.loads(RESULT.read_text())
    assert "nothing here was measured on a GPU" in record["is"]
    for name, counts in record["counts"].items():
        for card, predicted in record["predicted"][name].items():
            assert predict(counts, CARDS[card]) == predicted, "run: python -m studies.gpu predict"
    assert len(record["wedges"]) == 2  # passes of the default bundle
    for wedge in record["wedges"]:
        assert scaled(wedge, wedge["sizes"])["stages"] == wedge["stages"]
    twice = {name: 2 * size for name, size in wedge["sizes"].items()}
    grown = scaled(wedge, twice)["stages"]["filter"]
    assert grown["bytes"] == 2 * wedge["stages"]["filter"]["bytes"]
    assert grown["operations"] == wedge["stages"]["filter"]["operations"]


def test_what_bounds_a_stage():
    work = dict.fromkeys(("operations", "kernels", "bytes", "matrix", "vector", "double"), 0)
    card = CARDS["A100"]
    assert device_time(work | {"bytes": 2_040_000_000}, card) == (
        pytest.approx(1000 / 0.7),
        "memory",
    )
    assert device_time(work | {"kernels": 2, "operations": 2}, card) == (10.0, "starts")


def test_what_the_interpreter_took_is_never_a_result():
    with pytest.raises(InputError, match="interpreter is no GPU"):
        run(MEASURED, Plan("cpu", []))


def test_everything_is_measured(tmp_path: Path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    command = [sys.executable, "-m", "studies.gpu", "measure", "--device", "cpu", "--most", "1"]
    command += ["--events", str(ROOT / "examples/events/pu20"), "--wedge", "0.02"]
    command += ["--repetitions", "2", "--in-flight", "1", "--bundle", str(bundle.path)]
    path = tmp_path / "gpu.json"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [*command, "--json", str(path)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    assert record["conformance"]["equal"]
    assert record["physics"]["events"] == 1
    assert record["stages"]["ms"]["neighbours"]["median"] > 0
    assert (
        set(record["in_process"]) == set(record["served"]) == {"1"}
    )  # the interpreter runs in one thread
    assert "| in flight | in process" in done.stdout
