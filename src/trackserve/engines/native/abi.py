"""The boundary to the compiled library: its files, the structures and functions, and a check that they fit."""

from __future__ import annotations

import ctypes
import math
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackserve.engines.native.fitting import FitSettings, Fitting, Region
from trackserve.errors import MissingDependencyError
from trackserve.pipeline.timings import STAGE_NAMES

if TYPE_CHECKING:
    from trackserve.pipeline.budget import Limits

VARIANTS = ("portable", "avx2", "avx512", "avx512vnni", "avx512bf16")
"""What the library is compiled for, in the order of the levels that it reports for a processor."""
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


class EventBudget(ctypes.Structure):
    """What one event may need (``trackserve::Budget``)."""

    _fields_ = (("edges", c_int64), ("triplets", c_int64), ("seconds", c_double))

    @classmethod
    def of(cls, limits: Limits | None, seconds: float = math.inf) -> EventBudget:
        """Return an event's limits, or none; ``seconds`` are those that are left."""
        if limits is None:
            return cls(2**63 - 1, 2**63 - 1, seconds)
        return cls(limits.edges, limits.triplets, min(limits.seconds, seconds))


class NetworkInput(ctypes.Structure):
    """What a network sees of an event (``trackserve::Graph``)."""

    _fields_ = (
        *(("features", c_void_p), ("hits", c_int64)),
        *(("inner", c_void_p), ("outer", c_void_p), ("edges", c_int64)),
        *(("first", c_void_p), ("second", c_void_p), ("triplets", c_int64)),
    )


class Memory(ctypes.Structure):
    """A block of the library's memory (``trackserve::Pairs::Rows``)."""

    _fields_ = (("start", c_void_p), ("bytes", c_int64))


ABI_VERSION = 4
"""Of the functions below: raise it, here and in ``native/interface.cpp``, when one of them changes."""
_BUDGET = POINTER(EventBudget)
_ROWS, _COUNT, _GRAPH = POINTER(Memory), POINTER(c_int64), POINTER(NetworkInput)
_POSITION = (c_void_p, c_void_p, c_void_p)
_PAIR, _NEW_PAIR = (c_void_p, c_void_p), (_ROWS, _ROWS, _COUNT)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "canonical_order": (c_void_p, c_int64, c_int32, c_void_p, c_void_p),
    "neighbours": (
        *(c_void_p, c_int64, c_int32, *_POSITION, c_double, c_int32, c_void_p, c_float, _BUDGET),
        *(c_int32, c_void_p, *_NEW_PAIR),
    ),
    "take": (c_int64, _ROWS),
    "give_back": (c_void_p, c_int64),
    "keep_edges": (c_void_p, c_float, c_int64, c_int64, *_PAIR, c_int32, *_NEW_PAIR),
    "join_edges": (
        *(*_POSITION, c_int64, *_PAIR, c_int64, c_void_p, _BUDGET, c_int32, *_NEW_PAIR),
    ),
    "keep_chains": (c_int32, *(c_int64, *_PAIR) * 2, c_int32, *_NEW_PAIR, *_NEW_PAIR),
    "scores_of": (c_void_p, c_int64, c_void_p),
    "build_tracks": (*(c_int64, *_PAIR, c_void_p, c_int64, c_float, c_int32, c_int64, c_void_p),),
    "processor_level": (),
    "has_precision": (c_int32,),
    "make_network": (POINTER(Description), POINTER(c_void_p)),
    "run_network": (c_void_p, _GRAPH, c_void_p, c_int32),
    "find_triplets": (
        *(c_void_p, _GRAPH, *_POSITION, c_void_p, c_float, _BUDGET, c_int32, *_NEW_PAIR),
    ),
    "find_tracks": (
        *(POINTER(PipelineConfig), c_void_p, *_POSITION, c_void_p, c_int64, _BUDGET, c_int32),
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


STRUCTURES = (
    Description,
    PipelineConfig,
    NetworkInput,
    Memory,
    Fitting,
    FitSettings,
    Region,
    EventBudget,
)
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
    return tuple(name for name in VARIANTS if path_of(name).is_file())


def variants() -> tuple[str, ...]:
    """Return the variants that are installed and that this processor runs, the fastest last."""
    if "portable" not in built():
        return ()
    level = int(load(path_of("portable")).trackserve_processor_level())
    return tuple(name for name in VARIANTS[: level + 1] if name in built())


def path_of(variant: str) -> Path:
    """Return the file of a variant, installed or not."""
    return Path(__file__).with_name(f"_kernels_{variant}.so")
