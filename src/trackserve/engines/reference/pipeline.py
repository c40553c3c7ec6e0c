"""The stage functions of :mod:`trackserve.pipeline`, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.engines.base import Pipeline, TimedTracks
from trackserve.pipeline.stages import StageContext, run_stages, stage_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.bundle import Bundle
    from trackserve.contract.wanted import Wanted
    from trackserve.event import Float32
    from trackserve.pipeline.stages import StageOutputs


class ReferencePipeline(Pipeline):
    """A bundle on onnxruntime; ``threads`` are used by the networks and the neighbour search."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        super().__init__(bundle, threads=threads)
        self._context = StageContext.open(bundle, threads)

    def _run_events(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        answers = []
        for features in events:
            _, tracks, timings = run_stages(self._context, features, wanted)
            answers.append(TimedTracks(tracks, timings))
        return answers

    def _run(self, features: Float32, wanted: Wanted) -> StageOutputs:
        outcome = run_stages(self._context, features, wanted)
        return stage_outputs(self._context, *outcome)
