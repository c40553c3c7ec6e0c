"""The types that cross stage boundaries: frozen, checked when made, plain numpy.

Symbols used throughout the package:

    N   hits of an event            E   edges of a graph
    F   features of a hit           D   dimensions of the embedding
    P   particles of an event       T   tracks of an event

Lengths are in mm, momenta in GeV, charges in units of e, angles in rad.
"""

from __future__ import annotations

from trackserve.event.arrays import Bool, Float32, Float64, Int32, Int64
from trackserve.event.graph import Graph, ScoredGraph, TripletGraph
from trackserve.event.hits import WIRE_COLUMNS, Clusters, Hits, Modules
from trackserve.event.tracks import NO_TRACK, Tracks
from trackserve.event.truth import NOISE, Event, Particles, Truth

__all__ = [
    "NOISE",
    "NO_TRACK",
    "WIRE_COLUMNS",
    "Bool",
    "Clusters",
    "Event",
    "Float32",
    "Float64",
    "Graph",
    "Hits",
    "Int32",
    "Int64",
    "Modules",
    "Particles",
    "ScoredGraph",
    "Tracks",
    "TripletGraph",
    "Truth",
]
