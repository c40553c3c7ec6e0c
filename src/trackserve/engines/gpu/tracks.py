"""Algorithm 3 on the device: from scored edges to tracks and their parameters, as pipeline/tracks.py.

candidates -> join those that one helix fits -> fit -> quality -> drop what is likely wrong -> extend
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.components import components, keep_tracks, number_sets, taken_edges
from trackserve.engines.gpu.extending import extend_tracks
from trackserve.engines.gpu.fit import Detector, Fits, Points, fit_tracks
from trackserve.engines.gpu.joining import Pieces, join_pieces
from trackserve.event import NO_TRACK
from trackserve.pipeline.circle import STRAIGHT
from trackserve.pipeline.fit import FEWEST_HITS, GEV_PER_T_MM
from trackserve.pipeline.joining import SHORTEST_PIECE
from trackserve.pipeline.quality import FARTHEST_START, LARGEST, LOG_PT

if TYPE_CHECKING:
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.gpu.lists import Room
    from trackserve.engines.gpu.order import DeviceHits
    from trackserve.pipeline.components import TrackBuilder
    from trackserve.pipeline.tracks import TrackStage

SCORE_UNIT = 2.0**40
"""Scores are added up as whole numbers: in any order the sum is the same."""


@dataclass(frozen=True, eq=False)
class DeviceTracks:
    """The label of each hit ``[N]``, numbered in each event from 0, and how many tracks each event has.

    ``parameters`` float32 ``[T, 14]`` are the columns of :class:`trackserve.track_table.TrackTable`, one event
    after the other.
    """

    labels: Tensor
    counts: Tensor
    parameters: Tensor | None


@dataclass(frozen=True, eq=False)
class _Fitted:
    labels: Tensor
    fits: Fits
    properties: Tensor
    quality: Tensor

    def take(self, tracks: Tensor, labels: Tensor) -> _Fitted:
        """Return these tracks, with the labels that they then have."""
        return _Fitted(
            labels, self.fits.take(tracks), self.properties[tracks], self.quality[tracks]
        )


class TrackFinder:
    """The last stage of one bundle, with its numbers on the device."""

    def __init__(self, stage: TrackStage, device: str) -> None:
        self._stage = stage
        self._detector = None if stage.fit is None else Detector(stage.fit, device)

    def __call__(
        self,
        hits: DeviceHits,
        edges: tuple[Tensor, Tensor],
        scores: Tensor,
        room: Room,
        *,
        events: int,
        wanted: Wanted,
    ) -> DeviceTracks:
        """Return the tracks of scored edges, given by their inner and outer hits ``[E]``, sorted."""
        builder = self._stage.chosen(wanted).builder
        taken = taken_edges(*edges, scores, builder)
        inner, outer = edges[0][taken], edges[1][taken]
        lowest = components(inner, outer, len(hits.event))
        table = None
        if not wanted.parameters and not builder.fits:
            labels = number_sets(lowest, builder.min_hits)
        else:
            found = self._choose(hits, builder, lowest, (inner, scores[taken]), room)
            labels = found.labels
            table = self._table(found) if wanted.parameters else None
        labels, counts = _in_events(labels, hits.event, events)
        return DeviceTracks(labels, counts, table)

    def _choose(
        self,
        hits: DeviceHits,
        builder: TrackBuilder,
        lowest: Tensor,
        steps: tuple[Tensor, Tensor],
        room: Room,
    ) -> _Fitted:
        """Build tracks with the help of the fit: join, fit, drop what is of too little quality, extend."""
        assert self._detector is not None, "this bundle has no fit"
        points = self._detector.points(hits.position)
        joins = builder.join > 0
        least = min(SHORTEST_PIECE, builder.min_hits) if joins else builder.min_hits
        labels = number_sets(lowest, least)
        if joins:
            labels = join_pieces(
                *(points, labels, hits.event),
                most_chi2=builder.join,
                detector=self._detector,
                room=room,
            )
            long_enough = Pieces.of(labels).begin.diff() >= builder.min_hits
            labels = keep_tracks(labels, long_enough)
        found = self._fit(points, labels, *steps)
        if builder.min_quality > 0:
            good = found.quality >= builder.min_quality
            found = found.take(torch.nonzero(good).flatten(), keep_tracks(labels, good))
        if builder.extend > 0:
            found = self._extended(points, found, hits.event, builder.extend, room)
        return found

    def _extended(
        self, points: Points, found: _Fitted, event: Tensor, chance: float, room: Room
    ) -> _Fitted:
        """Return the tracks after they took hits beyond their ends; a track keeps its quality."""
        assert self._detector is not None, "this bundle has no fit"
        labels = extend_tracks(
            points, found.labels, event, chance=chance, detector=self._detector, room=room
        )
        order = torch.argsort(Pieces.of(labels).first)
        number = torch.cat([torch.argsort(order), order.new_full((1,), NO_TRACK)])
        labels = number[labels]
        tracks = Pieces.of(labels)
        fits = fit_tracks(points.take(tracks.rows), tracks.begin, self._detector)
        return replace(found.take(order, labels), fits=fits)

    def _fit(self, points: Points, labels: Tensor, inner: Tensor, scores: Tensor) -> _Fitted:
        """Fit tracks, and work out their quality from the scores of the edges that they are made of."""
        assert self._detector is not None, "this bundle has no fit"
        tracks = Pieces.of(labels)
        fits = fit_tracks(points.take(tracks.rows), tracks.begin, self._detector)
        track = labels[inner]
        inside = track > NO_TRACK
        units = torch.round(scores[inside].double() * SCORE_UNIT).long()
        total = labels.new_zeros(len(tracks)).scatter_add_(0, track[inside], units)
        score = (total.double() / SCORE_UNIT) / (fits.hits - 1).clamp(min=1)
        r = torch.sqrt(points.x**2 + points.y**2)
        properties = self._properties(fits, score, r[tracks.first], r[tracks.last])
        quality = torch.full_like(score, torch.nan)
        if self._stage.quality is not None:
            logit = torch.zeros_like(score)
            for weight, column in zip(astuple(self._stage.quality), properties, strict=True):
                logit = logit + weight * column
            quality = 1 / (1 + torch.exp(-logit.clamp(-LARGEST, LARGEST)))
        quality = torch.where(fits.hits < FEWEST_HITS, 0.0, quality)
        return _Fitted(labels, fits, properties.T, quality)

    def _properties(self, fits: Fits, score: Tensor, first_r: Tensor, last_r: Tensor) -> Tensor:
        """Return what the quality depends on ``[12, T]``, as :func:`..quality.properties_of`."""
        assert self._detector is not None, "this bundle has no fit"
        pt = self._pt(fits)
        return torch.stack(
            [
                torch.ones_like(score),
                score,
                torch.log(fits.reduced_chi2 + 0.1),
                torch.log(fits.hits.double()),
                1 / fits.hits,
                torch.log(fits.d0.abs() + 0.05),
                torch.log(1 + fits.d0 * fits.d0 / fits.variance[:, 2]),
                torch.log(fits.z0.abs() + 5.0),
                first_r.clamp(max=FARTHEST_START) / 100,
                torch.log(pt).clamp(-LOG_PT, LOG_PT),
                torch.asinh(fits.cot).abs(),
                last_r / 1000,
            ]
        )

    def _pt(self, fits: Fits) -> Tensor:
        assert self._detector is not None, "this bundle has no fit"
        bend = fits.curvature.abs().clamp(min=STRAIGHT)
        return GEV_PER_T_MM * abs(self._detector.centre) / bend

    def _table(self, found: _Fitted) -> Tensor:
        """Return the table of what was fitted ``[T, 14]``."""
        assert self._detector is not None, "this bundle has no fit"
        fits, pt = found.fits, self._pt(found.fits)
        curvature = fits.curvature.abs().clamp(min=STRAIGHT)
        error = torch.sqrt(fits.variance)
        turns_right = fits.curvature * self._detector.centre < 0
        charge = torch.where(turns_right, 1.0, -1.0)
        hits = fits.hits.double()
        exact = {7: hits, 8: found.quality}
        columns = [
            *(pt, torch.asinh(fits.cot), fits.phi, fits.d0, fits.z0, charge),
            *(fits.reduced_chi2, hits, found.quality, pt * error[:, 0] / curvature),
            *(error[:, 4] / torch.sqrt(1 + fits.cot**2), error[:, 1], error[:, 2], error[:, 3]),
        ]
        fitted = fits.hits >= FEWEST_HITS
        return torch.stack(
            [
                exact[i] if i in exact else torch.where(fitted, column, torch.nan)
                for i, column in enumerate(columns)
            ],
            dim=1,
        ).float()


def _in_events(labels: Tensor, event: Tensor, events: int) -> tuple[Tensor, Tensor]:
    """Return labels numbered in each event from 0, and the number of tracks of each event."""
    on_track = labels > NO_TRACK
    # Of each event the highest label so far; tracks are numbered by their innermost hit.
    upto = labels.new_zeros(events)
    upto.scatter_reduce_(0, event.long(), labels + 1, "amax")
    upto = torch.cummax(upto, 0).values if events > 1 else upto
    counts = torch.diff(upto, prepend=upto.new_zeros(1))
    before = upto - counts
    return torch.where(on_track, labels - before[event.long()], NO_TRACK), counts
