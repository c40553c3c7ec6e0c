"""The reference engine: onnxruntime, numpy and scipy; short, clear, the definition of the result."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from trackserve.engines.base import Engine
from trackserve.engines.reference.pipeline import ReferencePipeline

if TYPE_CHECKING:
    from trackserve.bundle import Bundle

__all__ = ["ENGINE", "ReferencePipeline"]


class ReferenceEngine(Engine):
    """Runs the stages of :data:`trackserve.pipeline.stages.STAGES`, in float32."""

    name = "reference"
    summary = "onnxruntime, numpy and scipy: the definition of the result, many times slower"

    def unavailable(self) -> str | None:
        """Return None: what it needs is needed to import it."""
        return None

    def details(self) -> str:
        """Return the version of onnxruntime."""
        return f"onnxruntime {metadata.version('onnxruntime')}"

    def open(
        self, bundle: Bundle, *, device: str, precision: str, threads: int
    ) -> ReferencePipeline:
        """Return a bundle's pipeline."""
        del device, precision  # it has one of each
        return ReferencePipeline(bundle, threads=threads)


ENGINE = ReferenceEngine()
