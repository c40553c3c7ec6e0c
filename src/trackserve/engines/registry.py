"""The engines by name: every choice of an engine in trackserve is derived from this list."""

from __future__ import annotations

import difflib
import importlib
import warnings
from functools import cache, partial
from importlib import metadata
from typing import TYPE_CHECKING

from trackserve.errors import InputError, MissingDependencyError, needs_extra

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.engines.base import Engine, Pipeline

BUILT_IN = {
    "gpu": "trackserve.engines.gpu",
    "native": "trackserve.engines.native",
    "reference": "trackserve.engines.reference",
}
"""The engines that come with the package, the fastest first, and the modules with their ``ENGINE``."""
GROUP = "trackserve.engines"
"""The entry points of engines of other packages: each names a module with an ``ENGINE``."""
STAGES_ENGINE = "reference"
"""What runs the stages of an ensemble."""


@cache
def modules() -> dict[str, str]:
    """Return the module of each engine by its name, the fastest first; others' come last."""
    others = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    return {**BUILT_IN, **{name: at for name, at in others.items() if name not in BUILT_IN}}


def names() -> tuple[str, ...]:
    """Return the names of all engines, available on this machine or not, the fastest first."""
    return tuple(modules())


def engine(name: str) -> Engine:
    """Return an engine by its name; ``auto`` is the :func:`fastest`.

    Raises :class:`InputError` for an unknown name.
    """
    name = fastest() if name == "auto" else name
    if name not in modules():
        near = difflib.get_close_matches(name, names(), n=1) or names()
        message = f"no engine is named {name!r}; known are auto, {', '.join(near)}"
        raise InputError(message)
    found: Engine = importlib.import_module(modules()[name]).ENGINE
    return found


def fastest() -> str:
    """Return the name of the fastest engine that is available on this machine."""
    return next(name for name in names() if engine(name).chosen_by_auto())


def available() -> tuple[str, ...]:
    """Return the names of the engines that are available on this machine."""
    return tuple(name for name in names() if engine(name).unavailable() is None)


def precisions() -> tuple[str, ...]:
    """Return every precision that some engine has on some machine."""
    return tuple(dict.fromkeys(p for name in names() for p in engine(name).all_precisions))


def open_pipeline(
    bundle: Bundle | Path | str | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int = 1,
    precision: str | None = None,
) -> Pipeline:
    """Return the pipeline of a bundle (a folder, the shipped one if None) on an engine.

    ``auto`` is the :func:`fastest` engine on this machine, as on the command line. ``device`` is one of the engine's, its first if ``auto``. ``precision`` is what networks are
    computed in, the bundle's own if None; where this machine lacks it the nearest is taken, with a
    warning if it was asked for.

    Raises :class:`InputError` for an unknown engine, device or precision,
    :class:`MissingDependencyError` for an engine that is not available here.
    """
    with needs_extra("engines", "finding tracks in this process"):
        from trackserve.bundle import Bundle, read_bundle  # noqa: PLC0415 - names need no onnx
        from trackserve.engines.passes import open_passes  # noqa: PLC0415
    if not isinstance(bundle, Bundle):
        bundle = read_bundle(bundle)
    chosen = _named(engine)
    if reason := chosen.unavailable():
        raise MissingDependencyError(reason)
    devices = chosen.devices()
    device = devices[0] if device == "auto" else device
    if device not in devices:
        message = (
            f"the {chosen.name} engine has no device {device!r} here; it has {', '.join(devices)}"
        )
        raise InputError(message)
    if precision not in {None, *chosen.all_precisions}:
        others = [n for n in names() if precision in _named(n).all_precisions]
        hint = f"; choose the {' or '.join(others)} engine" if others else ""
        message = f"the {chosen.name} engine computes in {', '.join(chosen.all_precisions)}, not {precision}{hint}"
        raise InputError(message)
    wanted = precision or bundle.precision
    nearest = chosen.nearest_precision(wanted, device)
    open_pass = partial(chosen.open, device=device, precision=nearest, threads=threads)
    pipeline = open_passes(bundle, open_pass)
    if nearest != wanted:
        pipeline.notes.insert(
            0, f"{wanted} is computed in {nearest} by the {chosen.name} engine here"
        )
        if precision is not None:
            warnings.warn(pipeline.notes[0], stacklevel=2)
    return pipeline


_named = engine
