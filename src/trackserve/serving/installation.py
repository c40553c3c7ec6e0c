"""The tritonserver on this machine: where it is, what it needs around it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trackserve.errors import MissingDependencyError

NEWEST_PYTHON = (3, 12)
"""The newest Python that numpy 1, which the pip-installed tritonserver needs, has wheels for."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine; ``pip`` is the pytriton package's folder if it is from there."""

    binary: Path
    pip: Path | None


def find_tritonserver() -> Installation:
    """Find the tritonserver on PATH (as in NVIDIA's container), else the pip-installed one.

    Raises :class:`MissingDependencyError` if there is none that can work.
    """
    if found := shutil.which("tritonserver"):
        return Installation(Path(found), None)
    spec = importlib.util.find_spec("pytriton")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    remedy = _remedy(sys.version_info[:2])
    if folder is None or not (folder / "tritonserver/bin/tritonserver").is_file():
        message = "no tritonserver was found on PATH or in this Python environment; " + (
            remedy or "install one with: pip install 'trackserve[server]'"
        )
        raise MissingDependencyError(message)
    if int(np.__version__.split(".")[0]) > 1:
        message = (
            f"the pip-installed tritonserver needs numpy below 2, found {np.__version__}: its python "
            "backend would return empty tensors; " + (remedy or "run: pip install 'numpy<2'")
        )
        raise MissingDependencyError(message)
    return Installation(folder / "tritonserver/bin/tritonserver", folder)


def _remedy(python: tuple[int, int]) -> str | None:
    """Return what to do where the pip-installed tritonserver cannot run on a version of Python."""
    if python <= NEWEST_PYTHON:
        return None
    return (
        f"the pip-installed one runs on Python {_dotted(NEWEST_PYTHON)} at most, for numpy below 2 is "
        f"made for no newer one, and this is {_dotted(python)}: serve from a Python "
        f"{_dotted(NEWEST_PYTHON)}, or put another tritonserver on PATH (docs/deploying.md)"
    )


def _dotted(python: tuple[int, int]) -> str:
    return ".".join(map(str, python))


def assemble_backends(pytriton: Path, folder: Path) -> Path:
    """Link the python backend and the stub for this Python version into one backend directory."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = pytriton / "tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        message = f"the pip-installed tritonserver has no python backend for Python {version}"
        raise MissingDependencyError(message)
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for file in (
        *(pytriton / "tritonserver/backends/python").glob("*.so"),
        *(pytriton / "tritonserver/backends/python").glob("*.py"),
        stub,
    ):
        (python / file.name).symlink_to(file)
    return python.parent


KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
}
"""Lets the C library keep an event's memory for the next one: fresh pages cost 7 % of a large event."""


def server_environment() -> dict[str, str]:
    """Return the server's environment: this Python's packages and library, one thread by default.

    The stub takes its packages from the ``python3`` that is first on PATH. Threads of numerical
    libraries would come on top of those that the settings give to each model.
    """
    environment = KEEP_MEMORY | dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    one = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return environment | dict.fromkeys(one, "1")
