"""Fuzz the native kernels: ``python -m tools.fuzz_kernels --seconds 600``; needs clang++ (Debian: clang).

Compiles the kernels with libFuzzer and the address and undefined-behaviour sanitizers, then runs every
kernel on events made of mutated bytes, each within a budget. What the compiler makes is kept in
``build/fuzz``; inputs that reach new code in ``build/fuzz/corpus``. Exit status 1 for a finding, whose
input is left in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import os
import random
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
FOLDER = ROOT / "build" / "fuzz"
SANITIZERS = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
MOST_BYTES, SLOWEST = 20_000, 10
"""Bytes of an input, and seconds after which one counts as a hang."""
SEEDS = (40, 400, 1000, 4000, 12_000)
"""Bytes of the inputs that it begins with."""


def flags() -> list[str]:
    """Return how setup.py compiles the portable and the avx2 variant, with the sanitizers instead of -O3."""
    with mock.patch("setuptools.setup"):
        build = runpy.run_path(str(ROOT / "setup.py"))
    usual = [flag for flag in build["FLAGS"] if flag not in {"-O3", "-Wno-maybe-uninitialized"}]
    variant = "avx2" if "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8") else "portable"
    return [*usual, *build["VARIANTS"][variant], *SANITIZERS, "-O1", "-g1", "-pthread"]


def compiled(compiler: str) -> Path:
    """Compile what is newer than its object, and return the program."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    sources = [*NATIVE.glob("*.cpp"), NATIVE / "fuzz/drive.cpp", NATIVE / "fuzz/fuzz_events.cpp"]
    headers = max(path.stat().st_mtime for path in [*NATIVE.rglob("*.h"), NATIVE / "flags.txt"])

    def make(source: Path) -> Path:
        target = FOLDER / f"{source.stem}.o"
        newest = max(headers, source.stat().st_mtime)
        if not target.is_file() or target.stat().st_mtime < newest:
            command = [compiler, *flags(), f"-I{NATIVE}", "-c", str(source), "-o", str(target)]
            subprocess.run(command, check=True)
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as compilers:
        objects = list(compilers.map(make, sources))
    program = FOLDER / "fuzz_events"
    subprocess.run([compiler, *flags(), *map(str, objects), "-o", str(program)], check=True)
    return program


def fuzz(program: Path, seconds: int) -> int:
    """Run the program for this long; return its exit status, 0 where nothing was found."""
    corpus = FOLDER / "corpus"
    corpus.mkdir(exist_ok=True)
    generator = random.Random(1)
    for size in SEEDS:  # without some, it would begin with events of no hits
        (corpus / f"seed-{size}").write_bytes(generator.randbytes(size))
    limits = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-max_len={MOST_BYTES}",
        "-len_control=0",
    ]
    run = [str(program), *limits, "-rss_limit_mb=2048", f"-artifact_prefix={FOLDER}/", str(corpus)]
    return subprocess.run(run, check=False).returncode


def main() -> int:
    """Compile and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=10, help="how long to fuzz (default: 10)")
    options = parser.parse_args()
    compiler = shutil.which("clang++")
    if compiler is None:
        sys.stderr.write("clang++ was not found; install clang, which has libFuzzer\n")
        return 2
    return 1 if fuzz(compiled(compiler), options.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
