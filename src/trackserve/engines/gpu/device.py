"""Which devices the GPU engine can run on here, and why not on others; in one sentence each."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from trackserve.errors import InputError, MissingDependencyError

DRIVERS = {"/dev/nvidiactl": "NVIDIA", "/dev/kfd": "AMD", "/dev/dxg": "NVIDIA"}
"""What a driver for computing makes; the last is Windows' for Linux."""
COMPILERS = ("gcc", "clang")
OLDEST = (8, 0)
"""Compute capability of A100: older devices multiply neither TF32 nor bfloat16."""
SHARE = 0.2
"""Part of a device's memory that the lists of one pipeline may take, so that several find room."""
INTERPRETER_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Device:
    """A device as torch names it, what Triton compiles for, and the bytes that a pipeline may take."""

    name: str
    model: str
    backend: Literal["cuda", "hip", "interpreter"]
    bytes: int

    @property
    def in_interpreter(self) -> bool:
        """Whether kernels run in Triton's interpreter, on the processor."""
        return self.backend == "interpreter"


def in_interpreter() -> bool:
    """Return whether TRITON_INTERPRET asks for Triton's interpreter; triton is not imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "yes", "on", "y"}


def why_none() -> str | None:
    """Return why there is no device that the engine can use, or None where there is one.

    Looks for the driver first: to import torch takes seconds.
    """
    if not in_interpreter() and not any(Path(path).exists() for path in DRIVERS):
        return f"no GPU found: this machine has no driver for one ({', '.join(DRIVERS)})"
    if missing := missing_packages():
        return f"the gpu engine needs {' and '.join(missing)}: pip install 'trackserve[gpu]'"
    if in_interpreter():
        return None
    if not any(map(shutil.which, filter(None, (os.environ.get("CC"), *COMPILERS)))):
        return (
            "the gpu engine needs a C compiler, with which triton makes the launchers of kernels; "
            f"found none of {', '.join(COMPILERS)} (or set CC)"
        )
    return _why_not_by_torch()


def _why_not_by_torch() -> str | None:
    import torch  # noqa: PLC0415 - seconds

    if not torch.cuda.is_available():
        built = "for CUDA" if torch.version.cuda else "for ROCm" if torch.version.hip else ""
        return (
            f"torch {torch.__version__} finds no GPU and is built {built or 'for processors only'}; "
            "install a build for this driver, or look at nvidia-smi or rocm-smi"
        )
    if not devices():
        found = ".".join(map(str, torch.cuda.get_device_capability(0)))
        return (
            f"{torch.cuda.get_device_name(0)} has compute capability {found}; "
            f"the gpu engine needs {OLDEST[0]}.{OLDEST[1]} (A100) or newer"
        )
    return None


def missing_packages() -> list[str]:
    """Return which packages of the extra ``[gpu]`` are not installed."""
    return [name for name in ("torch", "triton", "onnx") if importlib.util.find_spec(name) is None]


def devices() -> tuple[str, ...]:
    """Return the names of the devices that the engine can use, such as ``cuda:0``; ``cpu`` interprets."""
    if missing_packages():
        return ()
    if in_interpreter():
        return ("cpu",)
    import torch  # noqa: PLC0415 - seconds

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{i}" for i in range(count) if _usable(i))


def open_device(name: str) -> Device:
    """Return a device by its name; ``cpu`` needs TRITON_INTERPRET=1.

    Raises :class:`MissingDependencyError` where the extra is not installed, :class:`InputError` for a
    device that is not here.
    """
    if missing := missing_packages():
        message = f"the gpu engine needs {' and '.join(missing)}: pip install 'trackserve[gpu]'"
        raise MissingDependencyError(message)
    if in_interpreter() and name == "cpu":
        return Device("cpu", "Triton's interpreter", "interpreter", INTERPRETER_BYTES)
    if name == "cpu":
        message = (
            "the gpu engine runs on cpu only in Triton's interpreter, a thousand times slower, for tests "
            "(TRITON_INTERPRET=1); choose the native engine"
        )
        raise InputError(message)
    if (reason := why_none()) is not None:
        raise InputError(reason)
    here = devices()
    if name not in here:
        message = f"no device {name!r} found; this machine has {', '.join(here)}"
        raise InputError(message)
    import torch  # noqa: PLC0415 - seconds

    properties = torch.cuda.get_device_properties(name)
    backend: Literal["cuda", "hip"] = "cuda" if torch.version.hip is None else "hip"
    return Device(name, properties.name, backend, int(properties.total_memory * SHARE))


def named() -> str:
    """Return the devices with their memory, and the versions of torch and triton, in words."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "triton"))
    if in_interpreter():
        return f"Triton's interpreter on the processor, for tests; {versions}"
    import torch  # noqa: PLC0415 - seconds

    found = []
    for name in devices():
        properties = torch.cuda.get_device_properties(name)
        found.append(f"{name} {properties.name} with {properties.total_memory / 2**30:.0f} GiB")
    return f"{', '.join(found)}; {versions}"


def _usable(index: int) -> bool:
    import torch  # noqa: PLC0415 - seconds

    return torch.version.hip is not None or torch.cuda.get_device_capability(index) >= OLDEST
