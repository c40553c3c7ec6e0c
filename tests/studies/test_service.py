"""The study of the service runs whole, goes on after a stop, and its tables are made of what it wrote."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.service
def test_the_study_writes_every_number_and_table(wedge, tmp_path):
    result = tmp_path / "service.json"
    (tmp_path / "service.parts").mkdir()
    skipped = {"skipped": "measured before"}
    (tmp_path / "service.parts/perf_analyzer.json").write_text(json.dumps(skipped))
    # Rolls and kills of a fleet take half a minute; tests/serving/fleet has them on a tiny bundle.
    fleet = json.loads((ROOT / "benchmarks/results/service.json").read_text())["fleet"]
    (tmp_path / "service.parts/fleet.json").write_text(json.dumps(fleet))
    program = [sys.executable, "-m", "studies.service", "--quick", "--bundle", "hl-lhc"]
    folders = ["--small", wedge, "--pu20", wedge, "--pu200", wedge, "-o", result]
    done = subprocess.run(
        [*program, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    for key in ("overhead_ratio_pu200", "small_events_per_s", "throughput_vs_inprocess"):
        assert found[key] > 0
    assert math.isfinite(found["overhead_ms_small"])  # of one round: its sign is chance
    assert found["lost_events"] == 0
    assert 0 < found["overload_goodput"] < 2
    assert found["perf_analyzer"] == skipped
    for kind in ("pu200", "pu20 Envoy apart"):
        counts = found["overload"][kind]["counts"]
        assert counts["answered"] + counts["refused"] == counts["sent"]
        assert counts["refused"] > 0
    assert found["killed"] == found["killed"] | {"lost": 0, "wrong": 0, "twice": 0, "restarts": 2}
    assert done.stdout.count("|---|") >= 3
