"""A bundle's pipeline on a GPU, with the results of the reference."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trackserve.engines.base import DeviceMemory, Pipeline, TimedTracks
from trackserve.engines.gpu.device import open_device
from trackserve.engines.gpu.inflight import InFlight
from trackserve.engines.gpu.lists import Room, sort
from trackserve.engines.gpu.stages import DeviceClock, DeviceStages, Outputs
from trackserve.errors import BudgetError, InputError
from trackserve.event import Graph, ScoredGraph, Tracks, TripletGraph
from trackserve.pipeline.stages import StageOutputs
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from trackserve.bundle import Bundle
    from trackserve.contract.wanted import Wanted
    from trackserve.event import Float32, Int64

HIT_BYTES = 512
"""Bytes that a hit takes before any edge is found: features, points, tiles, sorting."""


class GpuPipeline(Pipeline):
    """A bundle on one device, on a stream of its own; a network that is not of the family runs on the processor.

    ``device`` is as torch names it. ``memory`` bounds the bytes that the lists of the events that are
    taken together may fill, a share of the device's if None. Raises :class:`MissingDependencyError`
    or :class:`InputError` where there is no such device.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str,
        precision: str = "float32",
        memory: int | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(bundle, threads=threads, precision=precision, device=device)
        self._device = open_device(device)
        self._room = Room(memory or self._device.bytes, device)
        self._in_flight = InFlight.on(device)
        self._stream: torch.cuda.Stream | None = None
        if not self._device.in_interpreter:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with self._on_device():
            self._stages = DeviceStages(bundle, self._device, precision, self._room)
        self.notes += self._stages.notes

    def _on_device(self) -> AbstractContextManager[Any]:
        """Work on the stream of this pipeline, so that those of several are in flight together."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _run_events(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        """Return the tracks and timings of each event; events go through the stages together."""
        if not events:
            return []
        try:
            return self._together(events, wanted)
        except BudgetError:
            if len(events) == 1:
                raise
        # Each has a budget of its own: only the event beyond it is refused.
        return [self._together([event], wanted)[0] for event in events]

    def _together(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        with torch.inference_mode(), self._on_device():
            found, clock = self._find(events, wanted=wanted)
            labels = torch.empty_like(found.tracks.labels)
            labels[found.hits.row] = found.tracks.labels
            answer = labels.cpu().numpy()
            tables = _tables(found, wanted=wanted)
            timings = clock.timings()
        begins = np.cumsum([0, *map(len, events)]).tolist()
        return [
            TimedTracks(Tracks(answer[begin:end], tables[i]), timings[i])
            for i, (begin, end) in enumerate(pairwise(begins))
        ]

    def _run(self, features: Float32, wanted: Wanted) -> StageOutputs:
        with torch.inference_mode(), self._on_device():
            found, clock = self._find([features], wanted=wanted)
            return self._outputs(found, clock, wanted=wanted)

    def _outputs(self, found: Outputs, clock: DeviceClock, *, wanted: Wanted) -> StageOutputs:
        features: Float32 = found.hits.features.cpu().numpy()
        candidates, joined = sort(found.candidates), found.joined
        edges = _rows(joined.inner, joined.outer)
        graph = Graph(features, edges)
        if self.bundle.triplets is not None:
            graph = TripletGraph(features, edges, _rows(joined.one, joined.other))
        (table,) = _tables(found, wanted=wanted)
        (timings,) = clock.timings()
        return StageOutputs(
            order=found.hits.row.cpu().numpy(),
            embedding=found.points.cpu().numpy(),
            candidates=Graph(features, _rows(candidates.first, candidates.second)),
            filtered=Graph(features, _rows(found.filtered.first, found.filtered.second)),
            joined=graph,
            scored=ScoredGraph(features, edges, found.scores.cpu().numpy()),
            tracks=Tracks(found.tracks.labels.cpu().numpy(), table),
            timings=timings,
        )

    def _find(self, events: Sequence[Float32], *, wanted: Wanted) -> tuple[Outputs, DeviceClock]:
        hits = [len(event) for event in events]
        if sum(hits) > (most := self._room.bytes // HIT_BYTES):
            message = f"{sum(hits):,} hits at once; {self.device} has room for {most:,}"
            raise InputError(message)
        with suppress(torch.OutOfMemoryError), self._in_flight.beside_others():
            clock = DeviceClock(self._device, hits)
            return self._stages.run(events, clock, wanted), clock
        # Others in flight hold the memory: once they have ended, it is this one's turn alone.
        with self._in_flight.alone():
            torch.cuda.empty_cache()
            clock = DeviceClock(self._device, hits)
            try:
                return self._stages.run(events, clock, wanted), clock
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        message = (
            f"{self.device} ({self._device.model}) has too little memory for an event of {sum(hits):,} "
            "hits, even alone; send fewer hits, or choose a device with more"
        )
        raise InputError(message)

    def device_memory(self) -> DeviceMemory:
        """Return what the device has, what the lists of an event may take, what torch holds here."""
        found = {"limit": self._room.bytes}
        if not self._device.in_interpreter:
            found["total"] = torch.cuda.get_device_properties(self.device).total_memory
            found["reserved"] = torch.cuda.memory_reserved(self.device)
        return DeviceMemory(self._device.model, found)


def _tables(found: Outputs, *, wanted: Wanted) -> list[TrackTable | None]:
    """Return the table of each event's tracks, None where they are not wanted."""
    counts = found.tracks.counts.tolist()
    if not wanted.parameters or found.tracks.parameters is None:
        return [None] * len(counts)
    ends = np.cumsum([0, *counts]).tolist()
    matrix = found.tracks.parameters.cpu().numpy()
    return [TrackTable.from_matrix(matrix[begin:end]) for begin, end in pairwise(ends)]


def _rows(first: Tensor, second: Tensor) -> Int64:
    result: Int64 = torch.stack([first, second]).cpu().numpy()
    return result
