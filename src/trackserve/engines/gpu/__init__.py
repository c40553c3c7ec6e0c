"""The GPU engine: the whole way of an event on one device, hits up once and labels down once.

Every stage is a function on torch tensors, in the order of the pipeline:

    order  embedding  neighbours  filter  triplets  gnn  tracks (components joining fit quality)

torch does memory, sorting and scans; :mod:`.kernels` are in the Triton language where fusing pays.
Nothing of torch or triton is imported until a pipeline is opened: they are the extra ``[gpu]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.engines.base import Engine
from trackserve.engines.gpu.device import devices, in_interpreter, named, why_none

if TYPE_CHECKING:
    from trackserve.bundle import Bundle
    from trackserve.engines.gpu.engine import GpuPipeline

__all__ = ["ENGINE"]


class GpuEngine(Engine):
    """Runs kernels in the Triton language on an NVIDIA or AMD device; in its interpreter for tests."""

    name = "gpu"
    summary = "kernels for NVIDIA and AMD devices, the whole event on the device"
    tolerance = 1e-4
    all_precisions = ("float32", "bfloat16")
    device_kinds = ("cuda", "cpu")

    def unavailable(self) -> str | None:
        """Return why no device can be used here, None if one can."""
        return why_none()

    def details(self) -> str:
        """Return the devices with their memory, and the versions of torch and triton."""
        return named()

    def chosen_by_auto(self) -> bool:
        """Return whether there is a device; the interpreter is for tests alone."""
        return not in_interpreter() and self.unavailable() is None

    def devices(self) -> tuple[str, ...]:
        """Return the devices as torch names them, ``cpu`` in Triton's interpreter."""
        return devices()

    def nearest_precision(self, wanted: str, device: str) -> str:
        """Return bfloat16 for int8: a device multiplies it as fast as its memory delivers."""
        del device
        return wanted if wanted in self.all_precisions else "bfloat16"

    def open(self, bundle: Bundle, *, device: str, precision: str, threads: int) -> GpuPipeline:
        """Return a bundle's pipeline on one device."""
        from trackserve.engines.gpu.engine import GpuPipeline  # noqa: PLC0415 - imports torch

        return GpuPipeline(bundle, device=device, precision=precision, threads=threads)


ENGINE = GpuEngine()
