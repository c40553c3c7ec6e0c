"""Programs in C++ beside this file, compiled for the processor at hand; they print JSON."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from studies.record import ROOT

HERE = Path(__file__).parent
NATIVE = ROOT / "native"
OPTIONS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", f"-I{NATIVE}")


def run(source: str) -> Any:
    """Compile a file of this folder (with ``CXX`` or g++), run it, and return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        sources = (str(HERE / source), str(NATIVE / "memory.cpp"))
        command = [os.environ.get("CXX", "g++"), *OPTIONS, *sources, "-o", str(program)]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads(subprocess.run([program], check=True, capture_output=True).stdout)
