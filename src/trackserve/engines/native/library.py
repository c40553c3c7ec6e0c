"""The compiled library: its variants for different processors, and its functions."""

from __future__ import annotations

import ctypes
import math
from ctypes import POINTER, byref, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.contract.description import PRECISIONS
from trackserve.engines.native.fitting import FitSettings, Fitting, Region
from trackserve.errors import MissingDependencyError
from trackserve.event import Int32
from trackserve.pipeline.timings import EDGE_STAGES, STAGE_NAMES
from trackserve.track_table import TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.event import Float32, Int64

VARIANTS = ("portable", "avx2", "avx512", "avx512vnni", "avx512bf16")
"""What the library is compiled for, in the order of the levels that it reports for a processor."""
KEPT_BYTES = 64 << 10
"""The library keeps no smaller blocks of memory."""
KINDS = ("embedding", "filter", "triplets", "gnn")
STAGES = STAGE_NAMES[1:]
"""The stages that the library runs, from scaled features on; checked against its own when it is loaded."""


class Description(ctypes.Structure):
    """A network as handed to the library (``trackserve_description``)."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "precision", "width", "depth", "dimension")),
        *((name, c_int32) for name in ("features", "r", "phi", "z", "further")),
        *((name, c_float) for name in ("r_scale", "phi_scale", "z_scale")),
        ("further_columns", POINTER(c_int32)),
        ("tensors", POINTER(c_void_p)),
        ("ranges", POINTER(c_float)),
    )


Pairs = tuple[Int32, Int32]
"""Edges as rows of inner and of outer hits ``[E]``, triplets as rows of edges ``[T]``."""


class PipelineConfig(ctypes.Structure):
    """Networks and settings of the whole pipeline (``trackserve_pipeline``)."""

    _fields_ = (
        *((name, c_void_p) for name in KINDS),
        *(("squared_radius", c_double), ("min_hits", c_int64)),
        *((name, c_int32) for name in ("features", "dimension", "limit", "chain", "walk")),
        *(("doublet_cuts", c_float * 4), ("radian", c_float), ("filter_threshold", c_float)),
        *(("triplet_cuts", c_float * 4), ("triplet_threshold", c_float), ("track_cut", c_float)),
        ("fitting", POINTER(Fitting)),
    )


class _Graph(ctypes.Structure):
    """What a network sees of an event (``trackserve::Graph``)."""

    _fields_ = (
        *(("features", c_void_p), ("hits", c_int64)),
        *(("inner", c_void_p), ("outer", c_void_p), ("edges", c_int64)),
        *(("first", c_void_p), ("second", c_void_p), ("triplets", c_int64)),
    )


class _Memory(ctypes.Structure):
    """A block of the library's memory (``trackserve::Pairs::Rows``)."""

    _fields_ = (("start", c_void_p), ("bytes", c_int64))


ABI_VERSION = 3
"""Of the functions below: raise it, here and in ``native/interface.cpp``, when one of them changes."""
_ROWS, _COUNT, _GRAPH = POINTER(_Memory), POINTER(c_int64), POINTER(_Graph)
_POSITION = (c_void_p, c_void_p, c_void_p)
_PAIR, _NEW_PAIR = (c_void_p, c_void_p), (_ROWS, _ROWS, _COUNT)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "canonical_order": (c_void_p, c_int64, c_int32, c_void_p, c_void_p),
    "neighbours": (
        *(c_void_p, c_int64, c_int32, *_POSITION, c_double, c_int32, c_void_p, c_float, c_int32),
        *(c_void_p, *_NEW_PAIR),
    ),
    "take": (c_int64, _ROWS),
    "give_back": (c_void_p, c_int64),
    "keep_edges": (c_void_p, c_float, c_int64, c_int64, *_PAIR, c_int32, *_NEW_PAIR),
    "join_edges": (*_POSITION, c_int64, *_PAIR, c_int64, c_void_p, c_int32, *_NEW_PAIR),
    "keep_chains": (c_int32, *(c_int64, *_PAIR) * 2, c_int32, *_NEW_PAIR, *_NEW_PAIR),
    "scores_of": (c_void_p, c_int64, c_void_p),
    "build_tracks": (*(c_int64, *_PAIR, c_void_p, c_int64, c_float, c_int32, c_int64, c_void_p),),
    "processor_level": (),
    "has_precision": (c_int32,),
    "make_network": (POINTER(Description), POINTER(c_void_p)),
    "run_network": (c_void_p, _GRAPH, c_void_p, c_int32),
    "find_triplets": (c_void_p, _GRAPH, *_POSITION, c_void_p, c_float, c_int32, *_NEW_PAIR),
    "find_tracks": (
        *(POINTER(PipelineConfig), c_void_p, *_POSITION, c_void_p, c_int64, c_int32),
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "fitted_tracks": (
        *(POINTER(Fitting), c_int64, *_POSITION, *_PAIR, c_void_p, c_int64, c_float, c_int32),
        *(c_int64, c_void_p, c_void_p, _COUNT),
    ),
    "free_network": (c_void_p,),
}
"""The arguments of each function, ``trackserve_`` before its name, in the order of ``interface.cpp``."""
_VOID = ("give_back", "free_network")


class StaleLibraryError(MissingDependencyError):
    """A compiled library that does not fit the Python code beside it."""


STRUCTURES = (Description, PipelineConfig, _Graph, _Memory, Fitting, FitSettings, Region)
"""The structures that cross the boundary, in the order in which the library reports their sizes."""


def expected_abi() -> str:
    """Return what a library that fits this file reports of itself."""
    sizes = (ctypes.sizeof(s) for s in STRUCTURES)
    return f"version {ABI_VERSION}, structures of {' '.join(map(str, sizes))} bytes, stages {' '.join(STAGES)}"


@cache
def load(path: Path) -> ctypes.CDLL:
    """Load a compiled library and declare its functions.

    Raises :class:`StaleLibraryError` for a file that is no library or was made from other sources.
    """
    expected, found = expected_abi(), "no version"
    try:
        functions = ctypes.CDLL(str(path))
        functions.trackserve_abi.argtypes = ()
        functions.trackserve_abi.restype = ctypes.c_char_p
        found = functions.trackserve_abi().decode()
        if found == expected:
            for name, arguments in SIGNATURES.items():
                function = getattr(functions, f"trackserve_{name}")
                function.argtypes = arguments
                function.restype = None if name in _VOID else ctypes.c_int
            return functions
    except (OSError, AttributeError) as error:
        found = str(error)
    message = (
        f"{path} does not fit this version of trackserve: it has {found}; expected {expected}. "
        "Compile it again with `pip install .` in the sources (`make .venv/dev` in a checkout), or "
        "use the reference engine"
    )
    raise StaleLibraryError(message)


def built() -> tuple[str, ...]:
    """Return the variants that are installed, for this processor or not."""
    return tuple(name for name in VARIANTS if _path(name).is_file())


def variants() -> tuple[str, ...]:
    """Return the variants that are installed and that this processor runs, the fastest last."""
    if "portable" not in built():
        return ()
    level = int(load(_path("portable")).trackserve_processor_level())
    return tuple(name for name in VARIANTS[: level + 1] if name in built())


@cache
def library(variant: str | None = None) -> Library:
    """Load a variant, the fastest that this processor runs if none is named.

    Raises :class:`MissingDependencyError` where none is installed, :class:`StaleLibraryError` for one
    that does not fit.
    """
    found = variants()
    if not found or (variant is not None and variant not in found):
        wanted = "the native engine" if variant is None else f"the native engine for {variant}"
        message = (
            f"{wanted} is not installed or not for this processor (there is: "
            f"{', '.join(found) or 'none'}); install trackserve where a C++20 compiler is present, or "
            'use engine "reference"'
        )
        raise MissingDependencyError(message)
    return Library(variant or found[-1])


def _path(variant: str) -> Path:
    return Path(__file__).with_name(f"_kernels_{variant}.so")


def _pointer(array: np.ndarray[Any, Any]) -> c_void_p:
    """Return where the numbers are; the array stays for as long as the pointer."""
    assert array.flags.c_contiguous
    pointer = c_void_p(array.ctypes.data)
    pointer.array = array  # type: ignore[attr-defined]  # any name will do
    return pointer


class _BorrowedBuffer:
    """An array in the library's memory, which is given back with the last array that looks at it."""

    def __init__(
        self,
        memory: _Memory,
        shape: tuple[int, ...],
        dtype: type[np.generic],
        give_back: Callable[..., None],
    ) -> None:
        self._memory, self._give_back = memory, give_back
        self._none = np.empty(0, dtype)  # an address, even where there are no numbers
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (memory.start or self._none.ctypes.data, False),
        }

    def __del__(self) -> None:
        self._give_back(c_void_p(self._memory.start), c_int64(self._memory.bytes))


class Library:
    """One variant's functions, on numpy arrays; calls leave other Python threads running.

    Arrays are C-contiguous; edges are two int32 arrays, the rows of inner and of outer hits.
    """

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._functions = load(_path(variant))

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._functions, f"trackserve_{function}")(*arguments)
        if status == 1:
            message = f"the native engine ran out of memory in {function}"
            raise MemoryError(message)
        if status:
            message = f"the native engine failed in {function}"
            raise RuntimeError(message)

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions that this variant has instructions for.

        In int8 these are the hidden layers of the filter and of the triplet classifier.
        """
        has = self._functions.trackserve_has_precision
        return tuple(name for code, name in enumerate(PRECISIONS) if has(code))

    def nearest_precision(self, wanted: str) -> str:
        """Return what this variant computes in where this precision is wanted."""
        return wanted if wanted in self.precisions() else "float32"

    def canonical_order(self, features: Float32, distance: Float32) -> Int64:
        """Return the rows ``[N]`` by distance, then by the last, the last but one ... feature."""
        order = self._empty((len(features),), np.int64)
        self._call(
            "canonical_order",
            *(_pointer(features), c_int64(len(features)), features.shape[1]),
            *(_pointer(distance), _pointer(order)),
        )
        return order

    def neighbours(
        self,
        embedding: Float32,
        position: tuple[Float32, Float32, Float32],
        *,
        squared_radius: float,
        limit: int,
        cuts: Sequence[float],
        radian: float = 0.0,
        threads: int = 1,
    ) -> tuple[Int32, Pairs]:
        """Return hits in space order and edges as places in it, for hits in canonical order.

        In space order, rows ``[N]``, consecutive hits are close together in the embedding, and, if
        ``radian`` is not 0, in azimuth, where one counts as much. ``position`` is r, phi, z ``[N]``;
        ``cuts`` are slope, z0, dphi, dcot of the doublet cuts.
        """
        order = self._empty((len(embedding),), np.int32)
        edges, count = (_Memory(), _Memory()), c_int64()
        self._call(
            "neighbours",
            *(_pointer(embedding), c_int64(len(embedding)), embedding.shape[1]),
            *map(_pointer, position),
            *(c_double(squared_radius), limit),
            *(_pointer(np.array(cuts, np.float32)), c_float(radian), threads),
            *(_pointer(order), *map(byref, edges), byref(count)),
        )
        return order, self._taken(edges, count)

    def _empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """Return an array to be written; a large one in memory that is kept from one event to the next."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < KEPT_BYTES:
            return np.empty(shape, dtype)
        memory = _Memory()
        self._call("take", c_int64(size), byref(memory))
        return self._borrowed(memory, shape, dtype)

    def _taken(self, rows: tuple[_Memory, _Memory], count: c_int64) -> Pairs:
        """Return two lists of rows that the library has made as arrays that look at them."""
        first, second = (self._borrowed(each, (count.value,), np.int32) for each in rows)
        return first, second

    def _borrowed(
        self, memory: _Memory, shape: tuple[int, ...], dtype: type[np.generic]
    ) -> np.ndarray[Any, Any]:
        give_back = self._functions.trackserve_give_back
        return np.asarray(_BorrowedBuffer(memory, shape, dtype, give_back))

    def keep_edges(
        self, logits: Float32, threshold: float, edges: Pairs, hits: int, *, threads: int = 1
    ) -> Pairs:
        """Return the edges whose logit reaches the threshold, sorted by their inner hit."""
        kept, count = (_Memory(), _Memory()), c_int64()
        self._call(
            "keep_edges",
            *(_pointer(logits), c_float(threshold), c_int64(len(logits)), c_int64(hits)),
            *(*map(_pointer, edges), threads, *map(byref, kept), byref(count)),
        )
        return self._taken(kept, count)

    def join_edges(
        self,
        position: tuple[Float32, Float32, Float32],
        edges: Pairs,
        *,
        cuts: Sequence[float],
        threads: int,
    ) -> Pairs:
        """Return the triplets, sorted, of edges that are sorted by their inner hit.

        ``position`` is r, phi, z ``[N]``; ``cuts`` are kink, off, slope, dphi of the triplet cuts.
        """
        triplets, count = (_Memory(), _Memory()), c_int64()
        self._call(
            "join_edges",
            *(*map(_pointer, position), c_int64(len(position[0]))),
            *(*map(_pointer, edges), c_int64(len(edges[0]))),
            *(_pointer(np.array(cuts, np.float32)), threads, *map(byref, triplets), byref(count)),
        )
        return self._taken(triplets, count)

    def keep_chains(
        self, edges: Pairs, triplets: Pairs, chain: int, *, threads: int = 1
    ) -> tuple[Pairs, Pairs]:
        """Return the edges and the triplets through which a chain of so many edges runs."""
        of_edges, of_triplets = (_Memory(), _Memory()), (_Memory(), _Memory())
        kept_edges, kept_triplets = c_int64(), c_int64()
        self._call(
            "keep_chains",
            *(chain, c_int64(len(triplets[0])), *map(_pointer, triplets)),
            *(c_int64(len(edges[0])), *map(_pointer, edges), threads),
            *(*map(byref, of_edges), byref(kept_edges)),
            *(*map(byref, of_triplets), byref(kept_triplets)),
        )
        return self._taken(of_edges, kept_edges), self._taken(of_triplets, kept_triplets)

    def build_tracks(
        self,
        hits: int,
        inner: Int32,
        outer: Int32,
        scores: Float32,
        *,
        cut: float,
        walk: bool,
        min_hits: int,
    ) -> Int64:
        """Return the track of each hit ``[N]``; edges and hits are in canonical rows."""
        labels = np.empty(hits, np.int64)
        self._call(
            "build_tracks",
            *(c_int64(hits), _pointer(inner), _pointer(outer), _pointer(scores)),
            *(c_int64(len(scores)), c_float(cut), int(walk), c_int64(min_hits), _pointer(labels)),
        )
        return labels

    def scores_of(self, logits: Float32) -> Float32:
        """Return the scores of logits ``[E]``."""
        scores = np.empty(len(logits), np.float32)
        self._call("scores_of", _pointer(logits), c_int64(len(logits)), _pointer(scores))
        return scores

    def fitted_tracks(
        self,
        fitting: Fitting,
        position: tuple[Float32, Float32, Float32],
        edges: Pairs,
        scores: Float32,
        *,
        cut: float,
        walk: bool,
        min_hits: int,
        parameters: bool,
    ) -> tuple[Int64, Float32 | None]:
        """Return the track of each hit ``[N]`` and, if wanted, the tracks' parameters ``[T, 14]``.

        ``position`` is r, phi, z ``[N]``; edges and hits are in canonical rows.
        """
        hits = len(position[0])
        labels, tracks = np.empty(hits, np.int64), c_int64()
        table = _room_for_tracks(hits, min_hits) if parameters else None
        self._call(
            "fitted_tracks",
            *(byref(fitting), c_int64(hits), *map(_pointer, position), *map(_pointer, edges)),
            *(_pointer(scores), c_int64(len(scores)), c_float(cut), int(walk), c_int64(min_hits)),
            *(_pointer(labels), None if table is None else _pointer(table), byref(tracks)),
        )
        return labels, None if table is None else table[: tracks.value]

    def find_tracks(
        self,
        config: PipelineConfig,
        features: Float32,
        position: tuple[Float32, Float32, Float32],
        begins: Int64,
        *,
        threads: int,
        parameters: bool = False,
    ) -> tuple[Int64, dict[str, float], list[dict[str, int]], list[Float32] | None]:
        """Return the track of each hit of some events, each stage's seconds, each event's edges by stage.

        ``position`` is r, phi, z ``[N]``; the hits of event i are the rows ``begins[i:i + 2]``, and its
        tracks are numbered from 0. Last are the parameters ``[T, 14]`` of each event's tracks, if wanted.
        """
        labels, events = np.empty(len(features), np.int64), len(begins) - 1
        seconds, edges = np.empty(len(STAGES)), np.empty((events, len(STAGES)), np.int64)
        table = _room_for_tracks(len(features), config.min_hits) if parameters else None
        tracks = np.zeros(events, np.int64)
        self._call(
            "find_tracks",
            *(byref(config), _pointer(features), *map(_pointer, position), _pointer(begins)),
            *(events, threads, _pointer(labels), _pointer(seconds), _pointer(edges)),
            *(None if table is None else _pointer(table), _pointer(tracks)),
        )
        counts = [dict(zip(STAGES, row, strict=True)) for row in edges.tolist()]
        left = [{stage: count[stage] for stage in EDGE_STAGES} for count in counts]
        ends = np.cumsum(tracks)
        tables = None if table is None else np.split(table[: tracks.sum()], ends[:-1])
        return labels, dict(zip(STAGES, seconds.tolist(), strict=True)), left, tables

    def make_network(self, description: Description) -> c_void_p:
        """Return a network, to be freed with :meth:`free_network`."""
        network = c_void_p()
        self._call("make_network", byref(description), byref(network))
        return network

    def free_network(self, network: c_void_p) -> None:
        """Give a network's memory back."""
        self._functions.trackserve_free_network(network)

    def run_network(
        self,
        network: c_void_p,
        features: Float32,
        edges: Pairs | None,
        triplets: Pairs | None,
        *,
        shape: tuple[int, ...],
        threads: int,
    ) -> Float32:
        """Return the network's output, of this shape."""
        result = self._empty(shape, np.float32)
        graph = _graph(features, edges, triplets)
        self._call("run_network", network, byref(graph), _pointer(result), threads)
        return result

    def find_triplets(
        self,
        network: c_void_p,
        features: Float32,
        edges: Pairs,
        position: tuple[Float32, Float32, Float32],
        *,
        cuts: Sequence[float],
        threshold: float,
        threads: int,
    ) -> Pairs:
        """Return what :meth:`join_edges` gives where the network's logit reaches the threshold.

        The triplets are sorted by the hit in which their edges meet.
        """
        triplets, count = (_Memory(), _Memory()), c_int64()
        graph = _graph(features, edges)
        self._call(
            "find_triplets",
            *(network, byref(graph), *map(_pointer, position)),
            *(_pointer(np.array(cuts, np.float32)), c_float(threshold), threads),
            *(*map(byref, triplets), byref(count)),
        )
        return self._taken(triplets, count)


def _room_for_tracks(hits: int, min_hits: int) -> Float32:
    """Return an array for the parameters of as many tracks as hits may make."""
    return np.empty((hits // max(1, min_hits), len(TRACK_COLUMNS)), np.float32)


def _graph(features: Float32, edges: Pairs | None, triplets: Pairs | None = None) -> _Graph:
    graph = _Graph(_pointer(features), len(features))
    if edges is not None:
        graph.inner, graph.outer, graph.edges = *map(_pointer, edges), len(edges[0])
    if triplets is not None:
        graph.first, graph.second = map(_pointer, triplets)
        graph.triplets = len(triplets[0])
    return graph
