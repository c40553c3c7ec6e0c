"""The packages that models need, in the repository itself: what Triton's EXECUTION_ENV_PATH names.

track_finding/environment/
  bin/activate     Triton sources it before it starts a model's process
  site-packages/   trackserve and the packages of this Python that its engines import

The process itself is Triton's own program, with the Python that Triton was built with. It ignores PYTHONPATH
(seen in 2.51: ``sys.flags.ignore_environment``), so each model puts the packages first on its path. numpy
isn't among them: Triton's python backend has imported its own by then.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import trackserve
from trackserve.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = "environment"
"""The folder's name in a model's."""
PACKAGES = "TRACKSERVE_PACKAGES"
"""What ``activate`` names the folder of packages by."""
FOR_ENGINES = ("onnx", "onnxruntime", "scipy")
FOR_GPU = (*FOR_ENGINES, "torch", "triton")
"""The packages of the extras [engines] and [gpu], beside numpy."""
FOR_TRACES = ("opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk")
"""Those of [trace]."""
_ACTIVATE = f"""\
{PACKAGES}="$(cd "$(dirname "${{BASH_SOURCE[0]}}")/.." && pwd)/site-packages"
export {PACKAGES}
"""
_MODEL = f"""\
import os
import sys

if sys.version_info[:2] != {{python}}:
    raise ImportError(
        "the packages in this repository are of Python {{dotted}}; this tritonserver runs models on Python "
        + ".".join(map(str, sys.version_info[:2])) + ", so write the repository with that one"
    )
if os.environ["{PACKAGES}"] not in sys.path:
    sys.path.insert(0, os.environ["{PACKAGES}"])

"""


def model_head() -> str:
    """Return what a model's file begins with to import packages from an environment of this Python."""
    python = sys.version_info[:2]
    return _MODEL.format(python=tuple(python), dotted=".".join(map(str, python)))


def write_environment(folder: Path, engine: str, *, traced: bool = False) -> Path:
    """Copy trackserve and what an engine needs into a new folder, and what spans need if ``traced``; return it.

    The packages are those of this Python, in the versions that are installed. Raises
    :class:`MissingDependencyError` if one isn't.
    """
    packages = folder / "site-packages"
    packages.mkdir(parents=True)
    part, names = ("gpu", FOR_GPU) if engine == "gpu" else ("engines", FOR_ENGINES)
    wanted = dict.fromkeys(names, part) | dict.fromkeys(FOR_TRACES if traced else (), "trace")
    for distribution in _needed(wanted):
        for file in distribution.files or ():
            origin = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and origin.is_file():  # programs lie outside
                copy = packages / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(
                    origin, copy
                )  # with its time, or Python would compile it at each start
    # A repository has its bundles itself.
    left_out = shutil.ignore_patterns("bundles")
    shutil.copytree(Path(trackserve.__file__).parent, packages / "trackserve", ignore=left_out)
    (folder / "bin").mkdir()
    (folder / "bin/activate").write_text(_ACTIVATE, encoding="utf-8")
    return folder


def check_torch(device: str) -> None:
    """Raise :class:`InputError` if the torch installed here is a build that has no such device."""
    version = metadata.version("torch")
    if device != "cpu" and version.endswith("+cpu"):
        message = (
            f"torch {version}, which is installed here, is a build for processors; for --device {device} "
            "install torch in a build for your GPU and write the repository again"
        )
        raise InputError(message)


def _needed(wanted: Mapping[str, str]) -> list[metadata.Distribution]:
    """Return packages, each with the extra that installs it, and what those need in turn, but for numpy."""
    found: dict[str, metadata.Distribution] = {}
    parts = dict(wanted)
    waiting = list(parts)
    while waiting:
        name = waiting.pop()
        if name in found or name == "numpy":
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            message = f"{name} is not installed: pip install 'trackserve[{parts[name]}]'"
            raise MissingDependencyError(message) from None
        for needed in filter(None, map(_name, found[name].requires or ())):
            parts.setdefault(needed, parts[name])
            waiting.append(needed)
    return list(found.values())


def _name(requirement: str) -> str | None:
    """Return the package of a requirement, None if it isn't needed here.

    Of those that only some systems need, pip has installed what is needed on this one.
    """
    name = re.match(r"[\w.-]+", requirement)
    assert name
    if "extra ==" in requirement:
        return None
    found = re.sub(r"[-_.]+", "-", name[0]).lower()
    if ";" in requirement:
        try:
            metadata.distribution(found)
        except metadata.PackageNotFoundError:
            return None
    return found
