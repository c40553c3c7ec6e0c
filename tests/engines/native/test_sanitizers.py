"""The kernels under the address and undefined-behaviour sanitizers, on ordinary and hostile events."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from trackserve.engines.native.abi import variants

ROOT = Path(__file__).parents[3]
COMPILER = os.environ.get("CXX", "g++")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")
def test_kernels_stay_in_bounds(tmp_path):
    with mock.patch("setuptools.setup"):
        build = runpy.run_path(str(ROOT / "setup.py"))
    flags = [
        *build["FLAGS"],
        *build["VARIANTS"][variants()[-1]],
        *SANITIZERS,
        "-O0",
        "-pthread",
    ]  # half the time of -O1
    sources = [*(ROOT / "native").glob("*.cpp"), ROOT / "native/fuzz/drive.cpp"]
    sources.append(ROOT / "tests/engines/native/hostile_events.cpp")

    # Headers are read once: most of the time otherwise.
    headers = tmp_path / "headers.h"
    lines = [f'#include "{path}"' for path in sorted((ROOT / "native").glob("*.h"))]
    headers.write_text("\n".join([*lines, "#include <algorithm>", "#include <vector>", ""]))
    command = [COMPILER, *flags, f"-I{ROOT / 'native'}"]
    subprocess.run([*command, "-x", "c++-header", headers, "-o", f"{headers}.gch"], check=True)

    def compiled(source):
        target = tmp_path / f"{source.stem}.o"
        subprocess.run([*command, "-include", headers, "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as compilers:
        objects = list(compilers.map(compiled, sources))
    program = tmp_path / "hostile_events"
    subprocess.run([COMPILER, *flags, *objects, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr
