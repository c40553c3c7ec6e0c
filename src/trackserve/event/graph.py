"""Graphs: hits, the edges between them, and the triplets of edges that meet in a hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.checks import check_column
from trackserve.errors import InputError

if TYPE_CHECKING:
    from trackserve.event.arrays import Float32, Int64


def _check_edges(owner: str, edges: object, nodes: int) -> None:
    if (
        not isinstance(edges, np.ndarray)
        or edges.dtype != np.int64
        or edges.ndim != 2
        or len(edges) != 2
    ):
        found = f"{edges.dtype} {list(edges.shape)}" if isinstance(edges, np.ndarray) else edges
        message = f"{owner}.edges is {found}; expected int64 of shape [2, E]"
        raise InputError(message)
    if edges.size and (edges.min() < 0 or edges.max() >= nodes):
        message = f"{owner}.edges points outside the {nodes} hits: {edges.min()} to {edges.max()}"
        raise InputError(message)


def _check_features(owner: str, features: object) -> None:
    if not isinstance(features, np.ndarray) or features.dtype != np.float32 or features.ndim != 2:
        found = (
            f"{features.dtype} {list(features.shape)}"
            if isinstance(features, np.ndarray)
            else features
        )
        message = f"{owner}.features is {found}; expected float32 of shape [N, F]"
        raise InputError(message)


@dataclass(frozen=True, eq=False)
class Graph:
    """Hits and the pairs of them that may be neighbours on a track.

    ``features`` is float32 ``[N, F]``; ``edges`` is int64 ``[2, E]``, each pair once, from the hit
    nearer to the origin to the farther one.
    """

    features: Float32
    edges: Int64

    def __post_init__(self) -> None:
        _check_features("Graph", self.features)
        _check_edges("Graph", self.edges, len(self.features))


@dataclass(frozen=True, eq=False)
class TripletGraph(Graph):
    """A graph with its triplets: edges that meet in a hit, and may follow each other on a track.

    ``triplets`` is int64 ``[2, T]``: the rows of an edge and of one that begins where it ends.
    """

    triplets: Int64

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_edges("TripletGraph", self.triplets, self.edges.shape[1])


@dataclass(frozen=True, eq=False)
class ScoredGraph:
    """A graph whose edges carry the GNN's score, float32 ``[E]`` in [0, 1]."""

    features: Float32
    edges: Int64
    scores: Float32

    def __post_init__(self) -> None:
        _check_features("ScoredGraph", self.features)
        _check_edges("ScoredGraph", self.edges, len(self.features))
        check_column("ScoredGraph", "scores", self.scores, np.float32, self.edges.shape[1])
