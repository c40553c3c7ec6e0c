"""Single stages on the kernels, with the arguments and results of those in :mod:`trackserve.pipeline`."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from trackserve.engines.native.fitting import Fitting
from trackserve.event import Graph, Tracks
from trackserve.pipeline.features import cylindrical
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from trackserve.engines.native.library import Library, Pairs
    from trackserve.event import Float32, Int32, Int64, ScoredGraph
    from trackserve.pipeline.features import FeatureColumns
    from trackserve.pipeline.neighbours import DoubletCuts
    from trackserve.pipeline.tracks import TrackStage
    from trackserve.pipeline.triplets import TripletCuts

RADIAN, MOST_RADIAN = 4.0, 1e9
"""Search radii per radian of azimuth when hits are sorted in space, and their maximum."""


def canonical_order(features: Float32, columns: FeatureColumns, library: Library) -> Int64:
    """Return what :func:`trackserve.pipeline.features.canonical_order` does."""
    r, _, z = cylindrical(features, columns)
    return library.canonical_order(np.ascontiguousarray(features), r * r + z * z)


def neighbours(
    embedding: Float32,
    features: Float32,
    columns: FeatureColumns,
    *,
    radius: float,
    limit: int,
    cuts: DoubletCuts,
    threads: int = 1,
    library: Library,
) -> Graph:
    """Return what :func:`trackserve.pipeline.neighbours.neighbours` does.

    A hit whose embedding is not finite has no neighbours.
    """
    place, edges = library.neighbours(
        np.ascontiguousarray(embedding),
        position_of(features, columns),
        **search_settings(radius, limit, cuts),
        threads=threads,
    )
    return Graph(features, sorted_edges(edges, place)[0])


def join_edges(
    graph: Graph, columns: FeatureColumns, cuts: TripletCuts, *, threads: int = 1, library: Library
) -> Int64:
    """Return what :func:`trackserve.pipeline.triplets.join_edges` does."""
    inner, outer = np.ascontiguousarray(graph.edges, np.int32)
    position = position_of(graph.features, columns)
    triplets = library.join_edges(position, (inner, outer), cuts=astuple(cuts), threads=threads)
    return np.stack(triplets).astype(np.int64)


def find_tracks(
    graph: ScoredGraph, stage: TrackStage, library: Library, *, parameters: bool = False
) -> Tracks:
    """Return what :func:`trackserve.pipeline.tracks.find_tracks` does."""
    if parameters:
        stage.check_parameters()
    inner, outer = np.ascontiguousarray(graph.edges, np.int32)
    return build_tracks(
        position_of(graph.features, stage.columns),
        (inner, outer),
        graph.scores,
        stage=stage,
        library=library,
        parameters=parameters,
    )


def sorted_edges(edges: Pairs, place: Int32) -> tuple[Int64, Int64]:
    """Return edges ``[2, E]`` in canonical rows, sorted, and which edge ``[E]`` each one was."""
    pair = place[edges[0]].astype(np.int64) * len(place) + place[edges[1]]
    which = np.argsort(pair)
    pair = pair[which]
    return np.stack(np.divmod(pair, len(place))) if len(place) else np.empty(
        (2, 0), np.int64
    ), which


class SearchSettings(TypedDict):
    """The settings of :meth:`trackserve.engines.native.library.Library.neighbours`."""

    squared_radius: float
    limit: int
    cuts: tuple[float, float, float, float]
    radian: float


def search_settings(radius: float, limit: int, cuts: DoubletCuts) -> SearchSettings:
    """Return the settings of the neighbour search."""
    return {
        # cKDTree keeps pairs whose squared distance is at most this.
        "squared_radius": float(np.nextafter(radius * radius, np.inf)),
        "limit": min(limit, 2**31 - 1),
        "cuts": (cuts.slope, cuts.z0, cuts.dphi, cuts.dcot),
        # Thin in azimuth where a cut bounds the step in it.
        "radian": min(RADIAN * radius, MOST_RADIAN) if np.isfinite(cuts.slope) else 0.0,
    }


def position_of(features: Float32, columns: FeatureColumns) -> tuple[Float32, Float32, Float32]:
    """Return r, phi, z of each hit, each contiguous."""
    r, phi, z = cylindrical(features, columns)
    return np.ascontiguousarray(r), np.ascontiguousarray(phi), np.ascontiguousarray(z)


def build_tracks(
    position: tuple[Float32, Float32, Float32],
    edges: Pairs,
    scores: Float32,
    *,
    stage: TrackStage,
    library: Library,
    parameters: bool,
) -> Tracks:
    """Return the tracks of edges ``[E]`` with scores ``[E]``; position is r, phi, z of each hit."""
    builder = stage.builder
    cut, walk = float(np.float32(builder.cut)), builder.method == "walk"
    if not (parameters or builder.fits):
        hits, few = len(position[0]), builder.min_hits
        return Tracks(library.build_tracks(hits, *edges, scores, cut=cut, walk=walk, min_hits=few))
    fitting = Fitting.of(stage)
    assert fitting is not None, "a builder that fits comes with a fit"
    labels, table = library.fitted_tracks(
        fitting,
        position,
        edges,
        scores,
        cut=cut,
        walk=walk,
        min_hits=builder.min_hits,
        parameters=parameters,
    )
    return Tracks(labels, None if table is None else TrackTable.from_matrix(table))
