"""The quality of tracks: which weights make it the share of tracks that are right, on events with truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.engines.passes import left_over
from trackserve.errors import InputError
from trackserve.evaluate.matching import match
from trackserve.event import NO_TRACK, Float64, Tracks
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.quality import QualityModel
from trackserve.pipeline.tracks import fit_and_choose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trackserve.engines.base import Pipeline
    from trackserve.event import Bool, Event, Int64, ScoredGraph
    from trackserve.pipeline.tracks import TrackStage

RIDGE = 1e-6
"""Keeps weights finite where a property separates right from wrong tracks perfectly."""
STEPS = 50
CLOSE = 1e-9
"""Largest change of a weight in the last step."""
FEWEST = 100
"""Right tracks, and wrong ones, from which twelve weights can be learned."""


class UnlearnableError(InputError):
    """The events have too few tracks to learn their quality from."""

    def __init__(self, right: int, tracks: int) -> None:
        self.tracks = tracks
        super().__init__(
            f"{right:,} of {tracks:,} tracks found in the validation events are right; it is learned from "
            f"{FEWEST} right and {FEWEST} wrong ones at least: give more events"
        )


def calibrated_quality(
    pipeline: Pipeline, events: Iterable[Event], first: Pipeline | None = None
) -> QualityModel:
    """Return the quality model of one pass, learned from all tracks that it finds in events with truth.

    For a second pass ``first`` is the pipeline of the one before, whose tracks' hits are left out.
    Raises :class:`UnlearnableError` where too few tracks are right or wrong, :class:`InputError` where events
    have no truth.
    """
    stage = every_track(pipeline.bundle.track_stage)
    seen = []
    for event in events:
        features = hit_features(event.hits, pipeline.bundle.features)
        rows = np.arange(len(features))
        if first is not None:
            rows = left_over(first.find_tracks_from_features(features))
        found = pipeline.run(features[rows])
        seen.append(tracks_and_truth(found.scored, rows[found.order], event, stage))
    if not seen:
        message = "there are no events to learn the quality of tracks from"
        raise InputError(message)
    return learn_quality(*(np.concatenate(each) for each in zip(*seen, strict=True)))


def every_track(stage: TrackStage) -> TrackStage:
    """Return the last stage of a pipeline that drops no track for its quality, and extends none."""
    return replace(stage, builder=replace(stage.builder, min_quality=0.0, extend=0.0))


def tracks_and_truth(
    graph: ScoredGraph, order: Int64, event: Event, stage: TrackStage
) -> tuple[Float64, Bool]:
    """Return the properties ``[T, 12]`` of the tracks of a scored graph, and which are right ``[T]``.

    ``order`` holds the input row of each of the graph's hits, which may be some of the event's.
    """
    if event.truth is None:
        message = f"event {event.event_id} has no truth; quality is learned from simulated events"
        raise InputError(message)
    found = fit_and_choose(graph, stage)
    labels = np.full(len(event.hits), NO_TRACK)
    labels[order] = found.labels
    return found.properties, match(Tracks(labels).labels, event.truth).track_matched


def learn_quality(properties: Float64, right: Bool) -> QualityModel:
    """Return the logistic model of which tracks are right, by iteratively reweighted least squares.

    Raises :class:`UnlearnableError` where too few are right, or wrong.
    """
    if min(right.sum(), (~right).sum()) < FEWEST:
        raise UnlearnableError(int(right.sum()), len(right))
    scale = np.maximum(np.abs(properties).max(axis=0), 1e-12)
    x, y = properties / scale, right.astype(np.float64)
    ridge = RIDGE * np.eye(x.shape[1])
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (y - p) / len(y) - ridge @ weights
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x / len(y) + ridge, gradient)
        weights += step
        if np.abs(step).max() < CLOSE:
            break
    return QualityModel(*(float(f"{value:.6g}") for value in (weights / scale).tolist()))
