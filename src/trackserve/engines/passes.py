"""Two passes over an event: the second looks, with other cuts, among the hits that the first left over.

An engine opens one pass at a time and knows nothing of the other, so every engine has both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.engines.base import Pipeline, TimedTracks
from trackserve.event import NO_TRACK, Tracks
from trackserve.pipeline.stages import SecondPass
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.bundle import Bundle
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.base import DeviceMemory
    from trackserve.event import Float32, Int64
    from trackserve.pipeline.stages import StageOutputs
    from trackserve.pipeline.timings import Timings


def open_passes(bundle: Bundle, open_pass: Callable[[Bundle], Pipeline]) -> Pipeline:
    """Return the pipeline of a bundle, given how an engine opens one pass of it."""
    if bundle.second_pass is None:
        return open_pass(bundle)
    return TwoPasses(bundle, open_pass(bundle.first_pass), open_pass(bundle.second_pass))


class TwoPasses(Pipeline):
    """Both passes of a bundle on one engine; tracks of the second are numbered after those of the first."""

    def __init__(self, bundle: Bundle, first: Pipeline, second: Pipeline) -> None:
        super().__init__(
            first.bundle, threads=first.threads, precision=first.precision, device=first.device
        )
        self.bundle = bundle
        self.notes = list(first.notes)
        self._first, self._second = first, second

    def device_memory(self) -> DeviceMemory | None:
        """Return the memory of the device, which both passes share."""
        return self._first.device_memory()

    def _run_events(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        first = self._first.run_events(events, wanted_of_first(wanted, self.bundle))
        rest = [
            features[left_over(found.tracks)] for features, found in zip(events, first, strict=True)
        ]
        second = self._second.run_events(rest, wanted)
        return [
            TimedTracks(both(one.tracks, other.tracks), _added(one.timings, other.timings))
            for one, other in zip(first, second, strict=True)
        ]

    def _run(self, features: Float32, wanted: Wanted) -> StageOutputs:
        first = self._first.run(features, parameters=wanted.parameters)
        tracks = Tracks(first.labels(), first.tracks.parameters)
        rows = left_over(tracks)
        second = self._second.run(features[rows], parameters=wanted.parameters)
        found = both(tracks, Tracks(second.labels(), second.tracks.parameters))
        return replace(
            first,
            tracks=Tracks(found.labels[first.order], found.parameters),
            timings=_added(first.timings, second.timings),
            second=SecondPass(rows, second),
        )


def wanted_of_first(wanted: Wanted, bundle: Bundle) -> Wanted:
    """Return what is wanted of the first pass: its own cut on quality is the least.

    What is below it is left to the second pass, whose cut the one that is wanted replaces.
    """
    if wanted.min_quality is None:
        return wanted
    least = max(wanted.min_quality, bundle.track_builder.min_quality)
    return replace(wanted, min_quality=least)


def left_over(tracks: Tracks) -> Int64:
    """Return the rows of the hits that are on no track."""
    return np.flatnonzero(tracks.labels == NO_TRACK)


def both(first: Tracks, second: Tracks) -> Tracks:
    """Return the tracks of both passes, given those of the second in the hits that the first left over."""
    labels = first.labels.copy()
    labels[left_over(first)] = np.where(
        second.labels == NO_TRACK, NO_TRACK, second.labels + len(first)
    )
    if first.parameters is None or second.parameters is None:
        return Tracks(labels)
    matrix = np.concatenate([first.parameters.matrix(), second.parameters.matrix()])
    return Tracks(labels, TrackTable.from_matrix(matrix))


def _added(first: Timings, second: Timings) -> Timings:
    """Return what both passes of one event took and left."""
    return replace(first + second, events=first.events)
