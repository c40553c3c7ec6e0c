"""The pipeline in this process, for when no server answers; needs ``pip install 'trackserve[engines]'``.

with Client("localhost:8001", fallback=Fallback()) as client: ...
"""

from __future__ import annotations

import warnings
from threading import Lock
from typing import TYPE_CHECKING

from trackserve.contract.tensors import EXATRKX, Model, split_name
from trackserve.errors import InputError, InputWarning, needs_extra

with needs_extra("engines", "a fallback, which finds tracks in this process,"):
    from trackserve.bundle import read_bundle
    from trackserve.bundle.description import describe
    from trackserve.engines.registry import open_pipeline
    from trackserve.pipeline.features import feature_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.contract.description import Description
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.base import Pipeline
    from trackserve.event import Float32, Tracks


class Fallback:
    """A bundle (the shipped one if None) that finds tracks here; its networks open at first use.

    ``engine`` and ``threads`` as in :func:`trackserve.engines.registry.open_pipeline`. Several threads may
    ask; one event is worked on at a time.
    """

    def __init__(
        self, bundle: Path | str | None = None, *, engine: str = "auto", threads: int = 1
    ) -> None:
        self._bundle = read_bundle(bundle)
        self._engine, self._threads = engine, threads
        self._pipeline: Pipeline | None = None
        self._lock = Lock()
        self.description = describe(self._bundle, max_hits=2**63 - 1, max_queue=0)

    def check_same(self, served: Description, url: str) -> None:
        """Raise :class:`InputError` if a server has another bundle: events would differ by luck."""
        own = self.description
        if own.digest != served.digest:
            message = (
                f"the fallback is bundle {own.bundle} ({own.digest}), {url} serves {served.bundle} "
                f"({served.digest}); give the fallback the bundle that is served"
            )
            raise InputError(message)

    def find_tracks(self, model: Model, array: Float32, wanted: Wanted) -> Tracks:
        """Return the tracks that a server would find in the one input of a model.

        Raises :class:`InputError` where it would refuse.
        """
        self.description.check(wanted, model)
        with self._lock:
            if self._pipeline is None:
                self._pipeline = open_pipeline(
                    self._bundle, engine=self._engine, threads=self._threads
                )
            scaled = split_name(model.name)[0] == EXATRKX.name
            features = array if scaled else feature_matrix(array, self._bundle.features)
            (found,) = self._pipeline.run_events([features], wanted)
            if scaled and (doubt := self._bundle.out_of_scale(features)):
                warnings.warn(doubt, InputWarning, stacklevel=2)
            return found.tracks
