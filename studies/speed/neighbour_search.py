"""Fixed-radius neighbours: the native search beside those of scipy, scikit-learn and faiss.

All are exact and run on one thread. They get the same embedded hits and give every pair within the
radius; what they give is compared pair by pair. ``[N, D]`` are N hits in D dimensions.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from studies.clock import exponent, stage_seconds
from trackserve.engines.native import library
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.neighbours import neighbours

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.engines.native import NativePipeline
    from trackserve.event import Float32, Hits, Int64

    Search = Callable[[Float32, float], Any]
    Pairs = Callable[[Any], tuple[Any, Any]]


def native(embedding: Float32, radius: float) -> Any:
    """Search with the native engine, without cuts and limit; give two lists of rows."""
    # Hits at different distances from the origin: no pair is left out.
    distance = 1 + np.arange(len(embedding), dtype=np.float32)
    nothing = np.zeros_like(distance)
    place, (inner, outer) = library().neighbours(
        embedding,
        (distance, nothing, nothing),
        squared_radius=float(np.nextafter(radius * radius, np.inf)),
        limit=len(embedding),
        cuts=(np.inf, np.inf, 0, 0),
    )
    return place, inner, outer


def scipy(embedding: Float32, radius: float) -> Any:
    """Search with scipy's cKDTree; give pairs ``[E, 2]``."""
    return cKDTree(embedding).query_pairs(radius, output_type="ndarray")


def scikit_tree(embedding: Float32, radius: float) -> Any:
    """Search with scikit-learn's KD-tree; give for each hit the rows of its neighbours."""
    tree = NearestNeighbors(radius=radius, algorithm="kd_tree").fit(embedding)
    return tree.radius_neighbors(return_distance=False)


def scikit_brute(embedding: Float32, radius: float) -> Any:
    """Search with scikit-learn's blocks of distances; give for each hit the rows of its neighbours."""
    table = NearestNeighbors(radius=radius, algorithm="brute").fit(embedding)
    return table.radius_neighbors(return_distance=False)


def faiss_flat(embedding: Float32, radius: float) -> Any:
    """Search with faiss's exact index; give the limits of each hit's neighbours, and their rows."""
    index = faiss.IndexFlatL2(embedding.shape[1])
    index.add(embedding)
    limits, _, rows = index.range_search(embedding, radius * radius)
    return limits, rows


def _directed(counts: Any, near: Any) -> tuple[Any, Any]:
    here = np.repeat(np.arange(len(counts)), np.asarray(counts, np.int64))
    once = here < near
    return here[once], near[once]


SWEPT, SHORT = 3, 8.0
"""How often a point of a sweep is measured, unless cKDTree took longer than SHORT seconds for it."""
LONG_ENOUGH = 15.0
"""Seconds after which a search is not repeated: its time is known well enough to rule it out."""
SEARCHES: dict[str, tuple[Search, Pairs]] = {
    "trackserve": (native, lambda found: (found[0][found[1]], found[0][found[2]])),
    "scipy cKDTree": (scipy, lambda found: (found[:, 0], found[:, 1])),
    "scikit-learn kd_tree": (
        scikit_tree,
        lambda found: _directed([len(f) for f in found], np.concatenate(found)),
    ),
    "scikit-learn brute": (
        scikit_brute,
        lambda found: _directed([len(f) for f in found], np.concatenate(found)),
    ),
    "faiss IndexFlatL2": (faiss_flat, lambda found: _directed(np.diff(found[0]), found[1])),
}
"""Each search, and what makes pairs of rows, each once, of what it gave."""


def compare(embedding: Float32, radius: float, repetitions: int) -> dict[str, Any]:
    """Return processor seconds of each search, alternating, and in how many pairs they differ."""
    faiss.omp_set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in SEARCHES}
    pairs: dict[str, Int64] = {}
    rounds = [(name, r) for r in range(repetitions) for name in SEARCHES]
    with threadpool_limits(1):
        for name, repetition in tqdm(rounds, desc="neighbours", unit="search"):
            if sum(seconds[name]) > LONG_ENOUGH:
                continue
            search, as_pairs = SEARCHES[name]
            start = time.process_time()
            found = search(embedding, radius)
            seconds[name].append(time.process_time() - start)
            if repetition == 0:
                pairs[name] = _numbered(*as_pairs(found), len(embedding))
            del found
    expected = pairs["scipy cKDTree"]
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    rivals = {name: value for name, value in median.items() if name != "trackserve"}
    fastest = min(rivals, key=rivals.__getitem__)
    return {
        "hits": len(embedding),
        "dimension": embedding.shape[1],
        "radius": radius,
        "pairs": len(expected),
        "seconds": seconds,
        "median_seconds": median,
        "pairs_that_differ_from_scipy": {
            name: len(np.setxor1d(found, expected, assume_unique=True))
            for name, found in pairs.items()
        },
        "fastest_other": fastest,
        "speedup": rivals[fastest] / median["trackserve"],
    }


def _numbered(a: Any, b: Any, hits: int) -> Int64:
    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
    found: Int64 = np.sort(low * hits + high)
    return found


def stage(pipeline: NativePipeline, hits: Hits, repetitions: int) -> dict[str, Any]:
    """Compare the whole stage, with doublet cuts and limit, with the reference: seconds and edges."""
    bundle = pipeline.bundle
    features = hit_features(hits, bundle.features)
    out = pipeline.run(features)
    how: Any = {
        "radius": bundle.radius,
        "limit": bundle.neighbour_limit,
        "cuts": bundle.doublet_cuts,
    }
    seconds: dict[str, list[float]] = {"trackserve": [], "reference": []}
    for _ in range(repetitions):
        _, stages = stage_seconds(pipeline, hits)
        seconds["trackserve"].append(stages["neighbours"])
        start = time.process_time()
        expected = neighbours(out.embedding, features[out.order], bundle.features, **how)
        seconds["reference"].append(time.process_time() - start)
    assert np.array_equal(out.candidates.edges, expected.edges), "edges differ from the reference's"
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "edges": expected.edges.shape[1],
        "median_seconds": median,
        "speedup": median["reference"] / median["trackserve"],
    }


# ---- how the cost grows


def sweeps(embedding: Float32, radius: float, *, quick: bool) -> dict[str, Any]:
    """Return seconds against hits, density, dimension (even points) and radius (this event)."""
    most = 4_000 if quick else 200_000
    hits = [most // 8, most // 4, most // 2, most]
    cases = {
        "hits": [(n, 8, 50.0) for n in hits],
        "density": [(most // 4, 8, k) for k in (1.0, 10.0, 100.0, 1000.0)],
        "dimension": [(most // 4, d, 50.0) for d in (2, 3, 4, 6, 8, 12, 16)],
    }
    found: dict[str, Any] = {}
    for swept, settings in cases.items():
        rows = [
            {"hits": n, "dimension": d, "wanted_neighbours": k, **_cost(*_even(n, d, k))}
            for n, d, k in tqdm(settings, desc=f"against {swept}", unit="search")
        ]
        found[swept] = {"rows": rows}
    found["radius"] = {
        "rows": [
            {"radius": radius * share, **_cost(embedding, radius * share)}
            for share in tqdm((0.5, 0.7, 0.85, 1.0, 1.15), desc="against radius", unit="search")
        ]
    }
    rows = found["hits"]["rows"]
    for name in ("trackserve", "scipy"):
        found["hits"][f"exponent_{name}"] = exponent(hits, [row[name] for row in rows])
    return found


def _even(hits: int, dimension: int, neighbours_wanted: float) -> tuple[Float32, float]:
    """Return points spread evenly in a cube, and the radius that holds the neighbours wanted, but for its walls."""
    points = np.random.default_rng(0).random((hits, dimension), np.float32)
    unit_ball = math.pi ** (dimension / 2) / math.gamma(dimension / 2 + 1)
    return points, float((neighbours_wanted / hits / unit_ball) ** (1 / dimension))


def _cost(points: Float32, radius: float) -> dict[str, float]:
    """Return the pairs and the medians of both searches, which alternate while they are short."""
    seconds: dict[str, list[float]] = {"trackserve": [], "scipy": []}
    while len(seconds["scipy"]) < SWEPT and sum(seconds["scipy"]) < SHORT:
        start = time.process_time()
        pairs = len(native(points, radius)[1])
        middle = time.process_time()
        scipy(points, radius)
        seconds["trackserve"].append(middle - start)
        seconds["scipy"].append(time.process_time() - middle)
    return {"pairs": pairs, **{name: float(np.median(each)) for name, each in seconds.items()}}
