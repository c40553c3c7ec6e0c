"""The types that cross stage boundaries: frozen, checked when made, plain numpy.

Symbols used throughout the package:

    N   hits of an event            E   edges of a graph
    F   features of a hit           D   dimensions of the embedding
    P   particles of an event       T   tracks of an event

Lengths are in mm, momenta in GeV, charges in units of e, angles in rad.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackserve.checks import check_column, check_columns
from trackserve.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.track_table import TrackTable

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

WIRE_COLUMNS = (
    *("x", "y", "z"),
    *("volume_id", "layer_id", "module_id"),
    *("cells", "length_u", "length_v", "charge"),
)
"""Everything about a hit that can be sent to a server, x, y, z (mm) first."""
NO_TRACK = -1
"""Label of a hit that is on no track."""
NOISE = 0
"""Particle id of a hit that no particle made (TrackML's convention)."""


@dataclass(frozen=True, eq=False)
class Modules:
    """The detector module that each hit lies on, numbered as in TrackML; each int32 ``[N]``."""

    volume_id: Int32
    layer_id: Int32
    module_id: Int32

    def __post_init__(self) -> None:
        check_columns(self, {"volume_id": np.int32, "layer_id": np.int32, "module_id": np.int32})

    def __len__(self) -> int:
        return len(self.volume_id)


@dataclass(frozen=True, eq=False)
class Clusters:
    """The shape of the cluster of cells behind each hit; each ``[N]``.

    ``cells`` counts the cells, ``length_u`` and ``length_v`` count the channels that they span
    along the two local axes, and ``charge`` is the sum of the cells' values.
    """

    cells: Int32
    length_u: Int32
    length_v: Int32
    charge: Float32

    def __post_init__(self) -> None:
        check_columns(
            self,
            {"cells": np.int32, "length_u": np.int32, "length_v": np.int32, "charge": np.float32},
        )

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True, eq=False)
class Hits:
    """The space points of one event: what track finding starts from.

    ``x``, ``y``, ``z`` are float32 ``[N]`` in mm and finite; ``hit_id`` is int64 ``[N]`` and
    unique. ``modules`` and ``clusters`` are there when the source has them.
    """

    hit_id: Int64
    x: Float32
    y: Float32
    z: Float32
    modules: Modules | None = None
    clusters: Clusters | None = None

    def __post_init__(self) -> None:
        check_columns(self, {"hit_id": np.int64, "x": np.float32, "y": np.float32, "z": np.float32})
        for name in ("x", "y", "z"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)))
            if len(bad):
                value = getattr(self, name)[bad[0]]
                message = (
                    f"hit row {bad[0]}: {name} is {value}; every hit needs finite x, y, z in mm"
                )
                raise InputError(message)
        ids, counts = np.unique(self.hit_id, return_counts=True)
        if len(ids) != len(self.hit_id):
            message = f"hit id {ids[counts > 1][0]} occurs more than once; hit ids must be unique"
            raise InputError(message)
        for part in (self.modules, self.clusters):
            if part is not None and len(part) != len(self):
                message = (
                    f"{type(part).__name__} describes {len(part)} hits; expected {len(self)}, "
                    "one for each hit"
                )
                raise InputError(message)

    def __len__(self) -> int:
        return len(self.hit_id)

    @classmethod
    def from_positions(cls, positions: NDArray[np.floating[Any]]) -> Hits:
        """Make hits from positions ``[N, 3]`` (x, y, z in mm), numbered from 0."""
        array = np.asarray(positions)
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
            message = (
                f"positions are {array.dtype} {list(array.shape)}; expected numbers of shape [N, 3]: "
                "x, y, z in mm"
            )
            raise InputError(message)
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
            x, y, z = np.ascontiguousarray(array.T, dtype=np.float32)
        return cls(hit_id=np.arange(len(array), dtype=np.int64), x=x, y=y, z=z)

    def table(self, columns: Sequence[str], absent: Mapping[str, float] | None = None) -> Float32:
        """Return these columns of the hits as float32 ``[N, C]``: what goes over the wire.

        Columns are ``x``, ``y``, ``z`` (mm) and the fields of :class:`Modules` and
        :class:`Clusters`. One that these hits don't have is filled with its value in ``absent``;
        raises :class:`InputError` if it has none there.
        """
        sources = (self, self.modules, self.clusters)
        table = np.empty((len(self), len(columns)), np.float32)
        for i, column in enumerate(columns):
            owner = next((s for s in sources if s is not None and hasattr(s, column)), None)
            if column in WIRE_COLUMNS and owner is not None:
                table[:, i] = getattr(owner, column)
            elif absent is not None and column in absent:
                table[:, i] = absent[column]
            else:
                message = f"these hits have no column {column!r}, which was asked for"
                raise InputError(message)
        return table

    def select(self, rows: NDArray[np.integer[Any]] | Bool) -> Hits:
        """Return the hits of these rows, in this order."""

        def taken(part: Modules | Clusters | None) -> dict[str, NDArray[np.generic]] | None:
            if part is None:
                return None
            return {f.name: getattr(part, f.name)[rows] for f in fields(part)}

        modules, clusters = taken(self.modules), taken(self.clusters)
        return Hits(
            hit_id=self.hit_id[rows],
            x=self.x[rows],
            y=self.y[rows],
            z=self.z[rows],
            modules=None if modules is None else Modules(**modules),  # type: ignore[arg-type]  # fields by name
            clusters=None if clusters is None else Clusters(**clusters),  # type: ignore[arg-type]  # fields by name
        )


@dataclass(frozen=True, eq=False)
class Particles:
    """The simulated particles of one event, one row each ``[P]``.

    ``vx``, ``vy``, ``vz`` is where a particle was produced (mm), ``px``, ``py``, ``pz`` its
    momentum there (GeV), ``q`` its charge (e). ``primary`` is False for what a secondary
    interaction or the decay of another simulated particle made.
    """

    particle_id: Int64
    vx: Float64
    vy: Float64
    vz: Float64
    px: Float64
    py: Float64
    pz: Float64
    q: Float64
    primary: Bool

    def __post_init__(self) -> None:
        numbers = ("vx", "vy", "vz", "px", "py", "pz", "q")
        check_columns(
            self,
            {"particle_id": np.int64, **dict.fromkeys(numbers, np.float64), "primary": np.bool_},
        )
        if len(np.unique(self.particle_id)) != len(self.particle_id):
            message = "a particle id occurs more than once among the particles; ids must be unique"
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.particle_id)

    @property
    def pt(self) -> Float64:
        """Transverse momentum ``[P]``, GeV."""
        pt: Float64 = np.hypot(self.px, self.py)
        return pt

    @property
    def eta(self) -> Float64:
        """Pseudorapidity of the momentum ``[P]``; infinite along the beam line."""
        with np.errstate(divide="ignore", invalid="ignore"):
            eta: Float64 = np.arcsinh(self.pz / self.pt)
        return np.nan_to_num(eta, nan=0.0, posinf=np.inf, neginf=-np.inf)

    @property
    def phi(self) -> Float64:
        """Azimuth of the momentum ``[P]``, rad in (-pi, pi]."""
        phi: Float64 = np.arctan2(self.py, self.px)
        return phi

    @property
    def production_radius(self) -> Float64:
        """Distance of the production point from the beam line ``[P]``, mm."""
        radius: Float64 = np.hypot(self.vx, self.vy)
        return radius


@dataclass(frozen=True, eq=False)
class Truth:
    """Which particle made each hit: known for simulated events, never seen by the served path.

    ``particle_id`` is int64 ``[N]`` (0 for noise), row by row as the hits; ``weight`` is float64
    ``[N]``, TrackML's importance of each hit (sums to 1 over an event, 0 for noise).
    """

    particle_id: Int64
    weight: Float64
    particles: Particles

    def __post_init__(self) -> None:
        check_columns(self, {"particle_id": np.int64, "weight": np.float64})
        known = np.isin(self.particle_id, self.particles.particle_id) | (self.particle_id == NOISE)
        if not known.all():
            message = (
                f"hit row {np.flatnonzero(~known)[0]}: particle id "
                f"{self.particle_id[~known][0]} is not among the particles"
            )
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.particle_id)

    def select(self, rows: NDArray[np.integer[Any]] | Bool) -> Truth:
        """Return the truth of the hits of these rows, in this order; all particles stay."""
        return Truth(self.particle_id[rows], self.weight[rows], self.particles)


@dataclass(frozen=True, eq=False)
class Event:
    """One event as read from disk: its hits and, where the source has it, their truth."""

    event_id: int
    hits: Hits
    truth: Truth | None = None

    def __post_init__(self) -> None:
        if self.truth is not None and len(self.truth) != len(self.hits):
            message = (
                f"event {self.event_id}: truth describes {len(self.truth)} hits; "
                f"expected {len(self.hits)}"
            )
            raise InputError(message)


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


@dataclass(frozen=True, eq=False, repr=False)
class Tracks:
    """The answer: for each hit the number of its track, int64 ``[N]``; -1 for a hit on none.

    Track numbers run from 0 without gaps. ``parameters`` describe each track where they were asked
    for.
    """

    labels: Int64
    parameters: TrackTable | None = None

    def __post_init__(self) -> None:
        check_column("Tracks", "labels", self.labels, np.int64, None)
        above = self.labels + 1
        # As unsigned numbers, so that one comparison finds those below 0 and those too large.
        fits = not (above.view(np.uint64) > len(above)).any()
        counts = np.bincount(above) if fits else above
        if not (fits and counts[1:].all()):
            message = (
                "Tracks.labels must number the tracks 0, 1, 2, ... without gaps; -1 is no track"
            )
            raise InputError(message)
        tracks = max(len(counts) - 1, 0)
        if self.parameters is not None and len(self.parameters) != tracks:
            message = f"Tracks.parameters has {len(self.parameters)} rows for {tracks} tracks"
            raise InputError(message)

    def __len__(self) -> int:
        """Return the number of tracks."""
        return int(self.labels.max(initial=NO_TRACK)) + 1

    def __repr__(self) -> str:
        fitted = "" if self.parameters is None else ", with parameters"
        return f"<{len(self)} tracks in {len(self.labels)} hits{fitted}>"

    def hits(self) -> list[Int64]:
        """Return the hits of each track, as row numbers in increasing order."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels + 1, minlength=1))
        return np.split(order, ends)[1:-1]

    def select(self, kept: Bool) -> Tracks:
        """Return the tracks of these ``[T]``, numbered again from 0; hits of others are on none.

        ``tracks.select(tracks.parameters.quality > 0.9)`` has fewer fakes, and misses more particles.
        """
        if kept.shape != (len(self),) or kept.dtype != np.bool_:
            message = f"selected {kept.dtype} {list(kept.shape)}; expected bool [{len(self)}], one a track"
            raise InputError(message)
        number = np.append(np.where(kept, np.cumsum(kept) - 1, NO_TRACK), NO_TRACK)
        table = None if self.parameters is None else self.parameters.select(kept)
        return Tracks(number[self.labels], table)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the tracks as columns ``[T]``: ``track_id``, ``hits`` and what is fitted of each.

        It is what ``pandas.DataFrame(tracks.columns())`` takes, and ``polars.DataFrame``.
        """
        count = np.bincount(self.labels + 1, minlength=1)[1:]
        columns: dict[str, NDArray[Any]] = {"track_id": np.arange(len(count)), "hits": count}
        fitted = {} if self.parameters is None else self.parameters.columns()
        return columns | {name: column for name, column in fitted.items() if name != "hits"}

    def to_awkward(self) -> Any:
        """Return an Awkward Array of tracks, each a record of :meth:`columns` with ``hits``, its rows of hits.

        Raises :class:`MissingDependencyError` without awkward (``trackserve[root]``).
        """
        try:
            awkward = import_module("awkward")
        except ImportError as error:
            message = (
                f"tracks as an Awkward Array need awkward ({error}): pip install 'trackserve[root]'"
            )
            raise MissingDependencyError(message) from error
        columns, lists = self.columns(), self.hits()
        rows = np.concatenate(lists) if lists else np.empty(0, np.int64)
        hits = awkward.unflatten(rows, columns["hits"])
        return awkward.zip({**columns, "hits": hits}, depth_limit=1)
