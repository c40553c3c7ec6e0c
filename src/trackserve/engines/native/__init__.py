"""The native engine: compiled kernels for the whole pipeline, chosen for the processor at run time.

Its sources are in ``native/``, one file a stage, each beside its numpy or torch reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.contract.description import PRECISIONS
from trackserve.engines.base import Engine
from trackserve.engines.native.abi import StaleLibraryError, built, variants
from trackserve.engines.native.agreement import TOLERANCE
from trackserve.engines.native.engine import NativePipeline
from trackserve.engines.native.library import library
from trackserve.errors import MissingDependencyError

if TYPE_CHECKING:
    from trackserve.bundle import Bundle

__all__ = ["ENGINE", "NativePipeline", "library", "variants"]


class NativeEngine(Engine):
    """Runs the compiled kernels of the best variant for this processor."""

    name = "native"
    summary = "compiled kernels, the fastest on a processor"
    tolerance = TOLERANCE
    all_precisions = PRECISIONS

    def unavailable(self) -> str | None:
        """Return why no variant runs here; raises :class:`StaleLibraryError` for one that does not fit."""
        try:
            library()
        except StaleLibraryError:
            raise
        except MissingDependencyError as error:
            return str(error)
        return None

    def details(self) -> str:
        """Return the variant for this processor with its precisions, and the others."""
        chosen = library()
        others = ", ".join(name for name in built() if name != chosen.variant) or "nothing"
        return f"{chosen.variant} ({', '.join(chosen.precisions())}); also built: {others}"

    def precisions(self, device: str) -> tuple[str, ...]:
        """Return what the processor has instructions for."""
        del device
        return library().precisions()

    def open(self, bundle: Bundle, *, device: str, precision: str, threads: int) -> NativePipeline:
        """Return a bundle's pipeline."""
        del device  # it has one
        return NativePipeline(bundle, threads=threads, precision=precision)


ENGINE = NativeEngine()
