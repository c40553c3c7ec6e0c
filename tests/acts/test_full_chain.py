"""The example of a whole ACTS chain, at no pileup."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "acts_full_chain.py"


@pytest.mark.service
def test_three_chains_find_and_fit_the_particles(tmp_path):
    command = [sys.executable, EXAMPLE, "--pileup", "5", "--events", "2", "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    chains = json.loads((tmp_path / "chains.json").read_text())["chains"]
    assert (tmp_path / "chains.png").stat().st_size > 10_000
    assert "2 events" in done.stdout
    for name in ("service", "ckf", "combined"):
        found = chains[name]
        assert found["targets"] > 50
        assert found["efficiency"] > 0.95, name
        assert found["fake_rate"] < 0.05, name
        assert found["resolution"]["d0"] < 0.15, name
        assert 0.8 < found["pull"]["qop"]["width"] < 1.5, name
