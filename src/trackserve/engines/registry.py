"""The engines that run a bundle, by name; all behind the one interface of Pipeline."""

from __future__ import annotations

import difflib
import warnings
from typing import TYPE_CHECKING, Literal

from trackserve.bundle import Bundle, read_bundle
from trackserve.engines.native import NativePipeline, library, variants
from trackserve.errors import InputError
from trackserve.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

ENGINES = {"reference": Pipeline, "native": NativePipeline}
"""``reference`` is onnxruntime, numpy and scipy; ``native`` our own compiled kernels, several times
faster, with scores that agree to 1e-4 (:data:`trackserve.engines.native.engine.TOLERANCE`)."""


def fastest() -> Literal["native", "reference"]:
    """Return the name of the fastest engine that is installed."""
    return "native" if variants() else "reference"


def nearest_precision(engine: str, wanted: str) -> str:
    """Return what an engine computes networks in on this machine, where this precision is wanted."""
    return library().nearest_precision(wanted) if engine == "native" else "float32"


def open_pipeline(
    bundle: Bundle | Path | str | None = None,
    *,
    engine: str = "auto",
    threads: int = 1,
    precision: str | None = None,
) -> Pipeline:
    """Return the pipeline of a bundle (a folder, the shipped one if None) on an engine.

    ``auto`` is the :func:`fastest` engine that is installed, as on the command line.

    ``precision`` is what the native engine computes networks in, the bundle's own if None; the
    reference computes in float32. Warns if this processor can't.

    Raises :class:`InputError` for an unknown engine, :class:`MissingDependencyError` for one that is
    not installed.
    """
    if not isinstance(bundle, Bundle):
        bundle = read_bundle(bundle)
    if engine == "auto":
        engine = fastest()
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1) or ENGINES
        message = f"there is no engine {engine!r}; there is: {', '.join(near)}"
        raise InputError(message)
    if engine == "native":
        pipeline = NativePipeline(bundle, threads=threads, precision=precision)
        if precision not in {None, pipeline.precision}:
            warnings.warn(pipeline.notes[0], stacklevel=2)
        return pipeline
    if precision not in {None, "float32"}:
        message = f"the {engine} engine computes in float32, not {precision}; choose the native one"
        raise InputError(message)
    return ENGINES[engine](bundle, threads=threads)
