"""The native engine: compiled kernels for the whole pipeline, chosen for the processor at run time.

Its sources are in ``native/``, one file a stage, each beside its numpy or torch reference.
"""

from trackserve.engines.native.engine import NativePipeline
from trackserve.engines.native.library import library, variants

__all__ = ["NativePipeline", "library", "variants"]
