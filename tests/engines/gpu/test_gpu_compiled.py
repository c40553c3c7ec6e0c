"""Kernels compiled ahead of time, for devices that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_kernels_compile_without_a_device_and_nothing_spills(target):
    """The interpreter is chosen when triton is imported, so a process without it compiles."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    kernels = ("filter", "tracks: fit")
    command = [sys.executable, "-m", "trackserve.engines.gpu.compiled", "--targets", target]
    command += ["--precisions", "bfloat16", "--kernels", *kernels]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert [each["kernel"] for each in found] == list(kernels)
    for each in found:
        assert each["target"] == target
        assert each["registers"] > 16
        assert each["spilled"] == 0
        assert each["occupancy"] > 0
