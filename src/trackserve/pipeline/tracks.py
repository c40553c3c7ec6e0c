"""Algorithm 3: from scored edges to tracks, with the parameters of each where they are wanted.

candidates -> join those that one helix fits -> fit -> quality -> drop what is likely wrong -> extend
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Float64, Int64, ScoredGraph, Tracks
from trackserve.pipeline.circle import STRAIGHT
from trackserve.pipeline.components import TrackBuilder, build_tracks, connected, taken_edges
from trackserve.pipeline.extending import extend_tracks
from trackserve.pipeline.fit import FEWEST_HITS, GEV_PER_T_MM, fit_tracks, points_of
from trackserve.pipeline.joining import SHORTEST_PIECE, Pieces, join_pieces
from trackserve.pipeline.quality import properties_of
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from trackserve.contract.wanted import Wanted
    from trackserve.pipeline.features import FeatureColumns
    from trackserve.pipeline.fit import Fits, FitSettings, Points
    from trackserve.pipeline.quality import QualityModel


@dataclass(frozen=True)
class TrackStage:
    """What the last stage needs of a bundle; ``fit`` and ``quality`` are there where it fits tracks."""

    columns: FeatureColumns
    builder: TrackBuilder
    fit: FitSettings | None = None
    quality: QualityModel | None = None

    def check_parameters(self) -> None:
        """Raise :class:`InputError` where this bundle can't fit tracks."""
        if self.fit is None:
            message = "this bundle has no [fit], so it can't give the parameters of tracks"
            raise InputError(message)

    def chosen(self, wanted: Wanted) -> TrackStage:
        """Return the stage with the quality cut that is wanted.

        Raises :class:`InputError` where this bundle can't fit tracks, or know their quality, as wanted.
        """
        if wanted.parameters:
            self.check_parameters()
        if wanted.min_quality is None:
            return self
        if self.quality is None or self.fit is None:
            message = "this bundle has no [quality], so tracks can't be chosen by their quality"
            raise InputError(message)
        return replace(self, builder=replace(self.builder, min_quality=wanted.min_quality))


@dataclass(frozen=True, eq=False)
class Fitted:
    """Tracks with their fits: ``labels`` ``[N]``; ``fits``, ``properties`` and ``quality`` ``[T]``."""

    labels: Int64
    fits: Fits
    properties: Float64
    quality: Float64

    def take(self, tracks: Int64, labels: Int64) -> Fitted:
        """Return these tracks, with the labels that they then have."""
        return Fitted(labels, self.fits.take(tracks), self.properties[tracks], self.quality[tracks])


def find_tracks(graph: ScoredGraph, stage: TrackStage, *, parameters: bool = False) -> Tracks:
    """Return the tracks of a scored graph, numbered by their innermost hit.

    ``parameters`` asks for the table of fitted parameters; raises :class:`InputError` where the bundle
    has no fit.
    """
    if parameters:
        stage.check_parameters()
    if not parameters and not stage.builder.fits:
        return build_tracks(graph, stage.builder)
    found = fit_and_choose(graph, stage)
    assert stage.fit is not None, "a builder that fits comes with a fit"
    return Tracks(found.labels, track_table(found, stage.fit) if parameters else None)


def fit_and_choose(graph: ScoredGraph, stage: TrackStage) -> Fitted:
    """Build tracks with the help of the fit: join, fit, drop what is of too little quality, extend."""
    builder, settings = stage.builder, stage.fit
    assert settings is not None, "this bundle has no fit"
    points = points_of(graph.features, stage.columns, settings)
    taken = taken_edges(graph, builder)
    edges, hits = graph.edges[:, taken], len(graph.features)
    joins = builder.join > 0
    least = min(SHORTEST_PIECE, builder.min_hits) if joins else builder.min_hits
    labels = connected(edges, hits=hits, min_hits=least).labels
    if joins:
        labels = join_pieces(points, labels, builder.join, settings)
        labels = _keep(labels, np.bincount(labels[labels > NO_TRACK]) >= builder.min_hits)
    found = _fit(points, labels, edges, graph.scores[taken].astype(np.float64), stage)
    if builder.min_quality > 0:
        good = found.quality >= builder.min_quality
        found = found.take(np.flatnonzero(good), _keep(labels, good))
    if builder.extend > 0:
        found = _extended(points, found, builder.extend, settings)
    return found


def _extended(points: Points, found: Fitted, chance: float, settings: FitSettings) -> Fitted:
    """Return the tracks after they took hits beyond their ends; a track keeps its quality."""
    labels = extend_tracks(points, found.labels, chance, settings)
    on_track = np.flatnonzero(labels > NO_TRACK)
    _, innermost = np.unique(labels[on_track], return_index=True)
    order = np.argsort(innermost)
    number = np.append(np.argsort(order), NO_TRACK)
    tracks = Pieces.of(number[labels])
    fits = fit_tracks(points.take(tracks.rows), tracks.begin, settings)
    return replace(found.take(order, number[labels]), fits=fits)


def _keep(labels: Int64, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Int64:
    """Return labels without the tracks ``[T]`` that are not kept, the others numbered without gaps."""
    number = np.append(np.where(kept, np.cumsum(kept) - 1, NO_TRACK), NO_TRACK)
    return number[labels]


def _fit(points: Points, labels: Int64, edges: Int64, scores: Float64, stage: TrackStage) -> Fitted:
    """Fit tracks, and work out their quality from the scores of the edges that they are made of."""
    assert stage.fit is not None, "this bundle has no fit"
    tracks = Pieces.of(labels)
    fits = fit_tracks(points.take(tracks.rows), tracks.begin, stage.fit)
    track = labels[edges[0]]
    inside = track > NO_TRACK
    total = np.bincount(track[inside], scores[inside], minlength=len(tracks))
    score = total / np.maximum(fits.hits - 1, 1)
    r = np.sqrt(points.x**2 + points.y**2)
    first, last = tracks.rows[tracks.begin[:-1]], tracks.rows[tracks.begin[1:] - 1]
    quality = np.full(len(tracks), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # what has too few hits for a fit
        properties = properties_of(fits, score, r[first], r[last], stage.fit)
        if stage.quality is not None:
            quality = stage.quality.quality(properties)
    quality = np.where(fits.hits < FEWEST_HITS, 0.0, quality)
    return Fitted(labels, fits, properties, quality)


def track_table(found: Fitted, settings: FitSettings) -> TrackTable:
    """Return the table of what was fitted."""
    fits = found.fits
    curvature = np.maximum(np.abs(fits.curvature), STRAIGHT)
    pt = GEV_PER_T_MM * abs(settings.field[0]) / curvature
    error = np.sqrt(fits.variance)
    turns_right = fits.curvature * settings.field[0] < 0
    fitted = fits.hits >= FEWEST_HITS
    columns = (
        *(pt, np.arcsinh(fits.cot), fits.phi, fits.d0, fits.z0, np.where(turns_right, 1.0, -1.0)),
        *(fits.reduced_chi2, fits.hits, found.quality, pt * error[:, 0] / curvature),
        *(error[:, 4] / np.sqrt(1 + fits.cot**2), error[:, 1], error[:, 2], error[:, 3]),
    )
    exact = (7, 8)  # hits and quality, which every track has
    return TrackTable(
        *(
            (column if i in exact else np.where(fitted, column, np.nan)).astype(np.float32)
            for i, column in enumerate(columns)
        )
    )
