"""How long each stage of an event took, and how many edges it left: a result like any other."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trackserve.contract.tensors import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STAGE_NAMES = tuple(stage.name for stage in STAGES)
EDGE_STAGES = tuple(stage.name for stage in STAGES if stage.outputs[0].dims[0] == 2)
"""The stages whose first output are edges: their number is part of the timings."""


@dataclass(frozen=True)
class Timings:
    """What the stages took and left, of one event or of several added up.

    ``seconds`` is the wall time of each stage that ran, ``edges`` the number of edges after each of
    :data:`EDGE_STAGES` that ran. Adding two of them adds times, edges and events.
    """

    seconds: Mapping[str, float]
    edges: Mapping[str, int] = field(default_factory=dict)
    events: int = 1

    def __post_init__(self) -> None:
        unknown = [*(self.seconds.keys() - STAGE_NAMES), *(self.edges.keys() - EDGE_STAGES)]
        if unknown:
            message = (
                f"timings of {unknown[0]!r}; the stages are {', '.join(STAGE_NAMES)}, and those with "
                f"edges {', '.join(EDGE_STAGES)}"
            )
            raise ValueError(message)
        lowest = min((*self.seconds.values(), *self.edges.values()), default=0)
        if self.events < 1 or not lowest >= 0:
            message = f"timings of {self.events} events with {lowest}; expected no negative number"
            raise ValueError(message)

    def __add__(self, other: Timings) -> Timings:
        ran = [s for s in STAGE_NAMES if s in self.seconds or s in other.seconds]
        left = [s for s in EDGE_STAGES if s in self.edges or s in other.edges]
        return Timings(
            {s: self.seconds.get(s, 0.0) + other.seconds.get(s, 0.0) for s in ran},
            {s: self.edges.get(s, 0) + other.edges.get(s, 0) for s in left},
            self.events + other.events,
        )


def shared(
    seconds: Mapping[str, float], hits: Sequence[int], edges: Sequence[Mapping[str, int]]
) -> list[Timings]:
    """Return the timings of each event of a batch that went through the stages together.

    A stage's seconds are shared among the events in proportion to their ``hits``, so that the sum
    over the batch is what the stage took. ``edges`` holds each event's own.
    """
    total = sum(hits)
    parts = [n / total if total else 1 / len(hits) for n in hits]
    return [
        Timings({stage: part * spent for stage, spent in seconds.items()}, own)
        for part, own in zip(parts, edges, strict=True)
    ]


class StageClock:
    """Times consecutive stages of one event, from when it is made."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._edges: dict[str, int] = {}
        self._since = time.perf_counter()

    def stop(self, stage: str, edges: int | None = None) -> None:
        """Note that a stage has ended, with this number of edges if it leaves edges."""
        since, self._since = self._since, time.perf_counter()
        self._seconds[stage] = self._since - since
        if edges is not None:
            self._edges[stage] = edges

    def timings(self) -> Timings:
        """Return what was measured."""
        return Timings(self._seconds, self._edges)
