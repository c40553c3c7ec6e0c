"""The speed benchmark runs whole, on small events, and its tables are made of what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_speed_writes_every_number_and_table(wedge, tmp_path):
    program = [sys.executable, "-m", "studies.speed", "--quick", "--bundle", "hl-lhc"]
    folders = ["--events", wedge, "--growth", wedge, wedge, "--small", wedge]
    folders += ["--json", tmp_path / "speed.json"]
    done = subprocess.run(
        [*program, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "speed.json").read_text())
    keys = ("ratio_to_ckf", "seconds_per_event", "neighbours_speedup", "small_event_ms")
    assert all(result[key] > 0 for key in keys)
    assert result["search"]["pairs_that_differ_from_scipy"]["trackserve"] == 0
    stages = result["whole"]["stages"]["float32"]
    assert {"embedding", "neighbours", "filter", "gnn", "tracks"} <= stages.keys()
    assert abs(sum(stages.values()) - 2 * stages["total"]) < 1e-3
    assert done.stdout.count("|---|") >= 8


def test_techniques_make_every_variant_and_a_row_of_each(wedge, tmp_path):
    program = [sys.executable, "-m", "studies.speed.techniques", "--quick", "--bundle", "hl-lhc"]
    where = ["--events", wedge, "--training", wedge, "--json", tmp_path / "techniques.json"]
    done = subprocess.run([*program, *where], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "techniques.json").read_text())["techniques"]
    assert next(iter(rows)) == "float32"
    assert all(row["seconds"]["total"] > 0 and row["judged"] == 1 for row in rows.values())
    assert rows["operators one by one"]["strict"]["points"] == 0
    assert done.stdout.count("\n| ") == len(rows)  # the heading comes first, after no line
