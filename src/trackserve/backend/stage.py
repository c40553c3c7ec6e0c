"""One stage as a model of an ensemble: the stage's function on Triton's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackserve.backend.entry import Entry
from trackserve.contract.tensors import FEATURES, HITS
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.pipeline.stages import STAGES, StageContext, tracks_in_input_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trackserve.contract.wanted import Wanted


class TritonPythonModel(Entry):
    """The stage that has the model's name; see the table of tensors."""

    def load(self) -> None:
        """Find the stage, and open its network if it has one."""
        (self._stage,) = (stage for stage in STAGES if stage.name == self._stage_name)
        self._context = StageContext.open(self.bundle, self.threads, [self._stage.name])

    def run(self, wanted: Wanted, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the stage's outputs, and those on request if they are wanted."""
        if self._table.inputs[0] in {HITS, FEATURES}:
            self.check_count(len(inputs[0]))
        if wanted == LABELS_ONLY or not self._table.on_request:
            return self._stage.run(self._context, *inputs)
        tracks = tracks_in_input_order(self._context, *inputs, wanted=wanted)
        if tracks.parameters is None:
            return (tracks.labels,)
        return tracks.labels, tracks.parameters.matrix()
