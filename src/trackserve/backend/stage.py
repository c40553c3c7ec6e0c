"""One stage as a model of an ensemble: the stage's function on Triton's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.backend.entry import Entry
from trackserve.contract.tensors import FEATURES, HITS, LABELS
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.engines.passes import both, left_over, wanted_of_first
from trackserve.engines.registry import STAGES_ENGINE, open_pipeline
from trackserve.pipeline.stages import STAGES, StageContext, tracks_in_input_order

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from trackserve.contract.wanted import Wanted
    from trackserve.engines.base import Pipeline
    from trackserve.event import Tracks


class TritonPythonModel(Entry):
    """The stage that has the model's name; see the table of tensors.

    The last one runs the second pass, where the bundle has one, on the hits that are then left over.
    """

    _second: Pipeline | None = None

    def networks(self) -> Collection[str] | None:
        """Return the stage's network, if it has one; the last stage may run a whole second pass."""
        return None if self._table.outputs[0] is LABELS else [self._stage_name]

    def load(self) -> None:
        """Find the stage, and open its network if it has one."""
        (self._stage,) = (stage for stage in STAGES if stage.name == self._stage_name)
        self._context = StageContext.open(self.bundle, self.threads, [self._stage.name])
        if self._table.outputs[0] is LABELS and self.bundle.second_pass is not None:
            self._second = open_pipeline(
                self.bundle.second_pass, engine=STAGES_ENGINE, threads=self.threads
            )

    def run(self, wanted: Wanted, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the stage's outputs, and those on request if they are wanted."""
        if self._table.inputs[0] in {HITS, FEATURES}:
            self.check_count(len(inputs[0]))
        if self._second is None and (wanted == LABELS_ONLY or not self._table.on_request):
            return self._stage.run(self._context, *inputs)
        tracks = self._tracks(wanted, *inputs)
        if tracks.parameters is None:
            return (tracks.labels,)
        return tracks.labels, tracks.parameters.matrix()

    def _tracks(self, wanted: Wanted, *inputs: NDArray[Any]) -> Tracks:
        if self._second is None:
            return tracks_in_input_order(self._context, *inputs, wanted=wanted)
        of_first = wanted_of_first(wanted, self.bundle)
        first = tracks_in_input_order(self._context, *inputs, wanted=of_first)
        in_order, *_, order = inputs
        features = np.empty_like(in_order)
        features[order] = in_order
        (second,) = self._second.run_events([features[left_over(first)]], wanted)
        return both(first, second.tracks)
