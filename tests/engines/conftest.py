"""What the conformance suite runs: every engine of the registry on each of its devices, and its bundles."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fitted_tracks import FALLING, QUALITY
from tiny_bundle import write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.native import NativePipeline, variants
from trackserve.engines.passes import open_passes
from trackserve.engines.reference import ReferencePipeline
from trackserve.engines.registry import available, engine
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.bundle import Bundle
    from trackserve.engines.base import Pipeline
    from trackserve.event import Float32
    from trackserve.pipeline.stages import StageOutputs

EVENTS = Path(__file__).parents[2] / "examples/events/pu20"
HALF = 0.09
"""Events are the hits of a real one's wedge, this wide (rad) on either side: some 500 hits, 49 tracks."""
NARROW = 0.05
"""That for Triton's interpreter, which takes seconds an event: some 300 hits, 22 tracks."""


@dataclass(frozen=True)
class Setup:
    """An engine on one of its devices: the suite runs whole for each."""

    engine: str
    label: str
    open_bundle: Callable[..., Pipeline]

    @property
    def interpreted(self) -> bool:
        """Whether Triton's interpreter runs the kernels, on the processor."""
        return self.engine == "gpu" and self.label.endswith("cpu")

    def open(self, bundle: Bundle, *, threads: int = 1, precision: str = "float32") -> Pipeline:
        """Open a bundle. That networks of no known family run elsewhere is noted, not warned of."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            opened = partial(self.open_bundle, threads=threads, precision=precision)
            return open_passes(bundle, opened)


if "gpu" in available():
    from triton.runtime import interpreter

    call = interpreter.InterpretedFunction.__call__

    def call_at_once(self, *given, **named):
        """Call a function of ours without setting the language up again: a third of the time."""
        if self.fn.__module__.startswith("trackserve."):
            return self.rewrite()(*given, **named)
        return call(self, *given, **named)

    interpreter.InterpretedFunction.__call__ = call_at_once

SETUPS = [
    *(
        Setup(name, f"{name} {device}", partial(engine(name).open, device=device))
        for name in available()
        for device in engine(name).devices()
    ),
    # What the registry does not open of itself: a line each.
    *(Setup("native", f"native {v}", partial(NativePipeline, variant=v)) for v in variants()[:-1]),
]


@dataclass(frozen=True, eq=False)
class Form:
    """A bundle of some form with features ``[N, F]`` of an event; the reference's outcome for them."""

    bundle: Bundle
    features: Float32

    @cached_property
    def pipeline(self) -> Pipeline:
        return open_passes(self.bundle, ReferencePipeline)

    @cached_property
    def outputs(self) -> StageOutputs:
        fits = self.bundle.fit is not None
        return self.pipeline.run(self.features, parameters=fits)


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Setup], Form]:
    """Return a form for an engine by its name: with or without triplets, with or without a fit."""
    whole = find_events(EVENTS)[0].read(truth=False).hits

    @cache
    def form(name: str, half: float) -> Form:
        hits = whole.select(np.flatnonzero(np.abs(np.arctan2(whole.y, whole.x)) < half))
        bundle = read_bundle()
        if "no triplets" in name:
            folder = tmp_path_factory.mktemp("bundles") / "tiny"
            bundle = write_tiny_bundle(folder, radius=0.15, method="walk", seed=13)
        builder = replace(bundle.track_builder, join=0.0, min_quality=0.0, extend=0.0)
        bundle = replace(bundle, fit=None, quality=None, track_builder=builder, second_pass=None)
        if "fit" in name:
            # Seconds for each event in the interpreter; tests of the gpu engine and of two passes have it.
            extend = 0.0 if half == NARROW else 0.0025
            builder = replace(builder, join=30.0, min_quality=0.1, extend=extend)
            bundle = replace(bundle, fit=FALLING, quality=QUALITY, track_builder=builder)
        if "two passes" in name:
            second = replace(bundle, doublet_cuts=replace(bundle.doublet_cuts, z0=400.0))
            builder = replace(builder, min_quality=0.9)
            bundle = replace(bundle, track_builder=builder, second_pass=second)
        return Form(bundle, hit_features(hits, bundle.features))

    return lambda name, setup: form(name, NARROW if setup.interpreted else HALF)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: setup.label.replace(" ", "-"))
def setup(request: pytest.FixtureRequest) -> Setup:
    found: Setup = request.param
    return found


@pytest.fixture(
    scope="module",
    params=["triplets", "triplets with a fit", "no triplets", "no triplets with a fit"],
    ids=lambda name: name.replace(" ", "-"),
)
def form(request: pytest.FixtureRequest, setup: Setup, forms: Callable[[str, Setup], Form]) -> Form:
    if setup.interpreted and request.param not in {"triplets with a fit", "no triplets"}:
        pytest.skip("Triton's interpreter takes seconds an event: two forms have every stage")
    return forms(request.param, setup)


@pytest.fixture(scope="module")
def shipped(setup: Setup, forms: Callable[[str, Setup], Form]) -> Form:
    """The shipped bundle without a fit."""
    return forms("triplets", setup)


@pytest.fixture(scope="module")
def twice(forms: Callable[[str, Setup], Form]) -> Form:
    """The shipped bundle with a fit and a second pass; one event for all engines."""
    return forms("two passes with a fit", next(s for s in SETUPS if not s.interpreted))


@pytest.fixture(scope="module")
def opened(setup: Setup) -> Callable[[Form], Pipeline]:
    """Open a form's bundle on an engine, once."""
    return cache(lambda form: setup.open(form.bundle))
