"""The classical peer: ACTS' triplet seeding and combinatorial Kalman filter on the same hits.

    python benchmarks/ckf.py EVENTS [--branches 1 2] [--events N] [--json OUT]

The chain is what a reconstruction with ACTS runs: space points from the pixels, grid triplet
seeding, track parameters from the seeds, the combinatorial Kalman filter through pixels and strips,
greedy ambiguity resolution. It gets what the networks get (positions, modules, cluster sizes as
they stand in the files) and knows besides what they do not: geometry, material and field. One
thread. Settings were tuned on validation events (pileup 200, seed 2) for |eta| < 4.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import acts
import acts.examples
import numpy as np
from tqdm import tqdm

from trackserve.data import find_events
from trackserve.data.detector import QUIET, build_detector, build_field, read_surfaces
from trackserve.evaluate.report import evaluate_event
from trackserve.event import NO_TRACK, Tracks

if TYPE_CHECKING:
    from trackserve.evaluate.report import Evaluation
    from trackserve.event import Float64, Hits, Int64

PIXELS = (7, 8, 9)
STRIPS = (12, 13, 14, 16, 17, 18)
GEV, TESLA = acts.UnitConstants.GeV, acts.UnitConstants.T

SEEDING = {
    "bFieldInZ": 2 * TESLA,
    "minPt": 0.9 * GEV,
    "impactMax": 3.0,
    "cotThetaMax": 27.9,  # |eta| < 4.02
    "collisionRegionMin": -250.0,
    "collisionRegionMax": 250.0,
    "rMin": 28.0,
    "rMax": 200.0,
    "zMin": -1600.0,
    "zMax": 1600.0,
    "rMinMiddle": 32.0,
    "rMaxMiddle": 178.0,
    "useVariableMiddleSPRange": False,
    **{f"deltaRMin{which}": 1.0 for which in ("", "Top", "Bottom")},
    **{f"deltaRMax{which}": 80.0 for which in ("", "Top", "Bottom")},
    "sigmaScattering": 5.0,
    "radLengthPerSeed": 0.1,
    "maxSeedsPerSpM": 1,
}
CHI2 = {"one branch": (30.0, 60.0), "several": (15.0, 25.0)}
"""Cuts on a measurement and on an outlier. With several branches wide cuts multiply candidates:
at pileup 200 with noise, two branches take three times as long as one, ten more than thirty times."""
PIXEL_HOLES, STRIP_HOLES = 1, 2
FEWEST_MEASUREMENTS = 6
LOWEST_PT = 0.5 * GEV
SHARED_HITS = 3
SPREAD_OF_LONG_CLUSTER = 0.5
"""Error of a cluster of two or more cells, relative to pitch / sqrt(12) of a single cell."""


class KalmanFilter:
    """ACTS' track finding on the Generic detector, set up once for many events."""

    def __init__(self, branches: int = 1) -> None:
        """Keep up to ``branches`` continuations of a track at each module."""
        self._detector = build_detector()
        self._surfaces = read_surfaces(self._detector)
        self._identifiers = [
            acts.GeometryIdentifier(value) for value in self._surfaces.geometry_id.tolist()
        ]
        self._input, self._output = _Measurements(), _FoundTracks()
        geometry, field = self._detector.trackingGeometry(), build_field()
        self._steps = {
            "space points": _make(
                acts.examples.SpacePointMaker,
                inputMeasurements="measurements",
                outputSpacePoints="space-points",
                trackingGeometry=geometry,
                geometrySelection=[acts.GeometryIdentifier(volume=volume) for volume in PIXELS],
            ),
            "seeding": _make(
                acts.examples.GridTripletSeedingAlgorithm,
                inputSpacePoints="space-points",
                outputSeeds="seeds",
                **SEEDING,
            ),
            "parameters": _make(
                acts.examples.TrackParamsEstimationAlgorithm,
                inputSeeds="seeds",
                outputTrackParameters="parameters",
                outputSeeds="estimated-seeds",
                trackingGeometry=geometry,
                magneticField=field,
            ),
            "kalman filter": _make(
                acts.examples.TrackFindingAlgorithm,
                inputMeasurements="measurements",
                inputInitialTrackParameters="parameters",
                inputSeeds="estimated-seeds",
                outputTracks="candidates",
                trackingGeometry=geometry,
                magneticField=field,
                measurementSelectorCfg=_selector(branches),
                trackSelectorCfg=acts.TrackSelector.Config(
                    ptMin=LOWEST_PT, minMeasurements=FEWEST_MEASUREMENTS
                ),
                findTracks=_track_finder("makeTrackFinderFunction", geometry, field),
                findTracksBrem=_track_finder("makeBremTrackFinderFunction", geometry, field),
                seedDeduplication=True,
                stayOnSeed=True,
                twoWay=True,
                reverseSearch=False,
                pixelVolumeIds=list(PIXELS),
                stripVolumeIds=list(STRIPS),
                maxPixelHoles=PIXEL_HOLES,
                maxStripHoles=STRIP_HOLES,
            ),
            "ambiguity": _make(
                acts.examples.GreedyAmbiguityResolutionAlgorithm,
                inputTracks="candidates",
                outputTracks="tracks",
                maximumSharedHits=SHARED_HITS,
                nMeasurementsMin=FEWEST_MEASUREMENTS,
                maximumIterations=1_000_000,
            ),
        }

    def find_tracks(self, hits: Hits) -> tuple[Tracks, dict[str, float]]:
        """Return the tracks and the processor seconds of each step; the hits need modules.

        Handing the hits over to ACTS and taking the tracks back are not counted.
        """
        surface = self._surface_rows(hits)
        order = np.argsort(surface, kind="stable")
        store = acts.examples.WhiteBoard(QUIET)
        context = acts.examples.AlgorithmContext(0, 0, store, 0)
        measurements = self._measurements(hits, surface, order)
        subset = acts.examples.MeasurementSubset(measurements, range(len(hits)))
        self._input.handle(context, subset)
        seconds = {}
        for name, step in self._steps.items():
            start = time.process_time()
            done = step.internalExecute(context)
            seconds[name] = time.process_time() - start
            assert done == acts.examples.ProcessCode.SUCCESS, f"{name} failed"
        return Tracks(_labels(self._output.handle(store), order)), seconds

    def _surface_rows(self, hits: Hits) -> Int64:
        modules, surfaces = hits.modules, self._surfaces
        assert modules is not None, "the Kalman filter needs the module of every hit"
        place = (modules.volume_id, modules.layer_id, modules.module_id)
        known = (surfaces.volume_id, surfaces.layer_id, surfaces.module_id)
        keys, wanted = ((v.astype(np.int64) << 40 | ly << 24 | m) for v, ly, m in (known, place))
        by_key = np.argsort(keys)
        rows: Int64 = by_key[np.searchsorted(keys, wanted, sorter=by_key)]
        return rows

    def _measurements(self, hits: Hits, surface: Int64, order: Int64) -> Any:
        position = np.column_stack([hits.x, hits.y, hits.z]).astype(np.float64)
        local = self._surfaces.to_local(surface, position)[:, :2]
        variance = self._variances(hits, surface)
        container = acts.examples.MeasurementContainer()
        container.reserve(len(hits))
        for row, place, error in zip(
            surface[order].tolist(), local[order].tolist(), variance[order].tolist(), strict=True
        ):
            container.emplaceMeasurement(self._identifiers[row], [0, 1], place, error)
        return container

    def _variances(self, hits: Hits, surface: Int64) -> Float64:
        variance: Float64 = self._surfaces.pitch[surface] ** 2 / 12
        if hits.clusters is not None:
            cells = np.column_stack([hits.clusters.length_u, hits.clusters.length_v])
            variance = np.where(cells > 1, SPREAD_OF_LONG_CLUSTER**2 * variance, variance)
        return variance


class _Measurements(acts.examples.IAlgorithm):  # type: ignore[misc]
    """Puts measurements into ACTS' event store."""

    def __init__(self) -> None:
        super().__init__("measurements", QUIET)
        kind = acts.examples.MeasurementSubset
        self.handle = acts.examples.WriteDataHandle(self, kind, "measurements")
        self.handle.initialize("measurements")


class _FoundTracks(acts.examples.IAlgorithm):  # type: ignore[misc]
    """Takes tracks out of ACTS' event store."""

    def __init__(self) -> None:
        super().__init__("tracks", QUIET)
        kind = acts.examples.ConstTrackContainer
        self.handle = acts.examples.ReadDataHandle(self, kind, "tracks")
        self.handle.initialize("tracks")


def _make(algorithm: Any, **settings: Any) -> Any:
    return algorithm(algorithm.Config(**settings), QUIET)


def _selector(branches: int) -> Any:
    measurement, outlier = CHI2["one branch" if branches == 1 else "several"]
    cuts: tuple[list[float], ...] = ([], [measurement], [outlier], [branches])
    return acts.MeasurementSelector.Config([(acts.GeometryIdentifier(), cuts)])


def _track_finder(name: str, geometry: Any, field: Any) -> Any:
    return getattr(acts.examples.TrackFindingAlgorithm, name)(geometry, field, QUIET)


def _labels(tracks: Any, order: Int64) -> Int64:
    """Return the track of each hit; a hit that several tracks share goes to the first of them."""
    labels = np.full(len(order), NO_TRACK, dtype=np.int64)
    number = 0
    for track in tracks:
        found = [
            acts.examples.IndexSourceLink.fromSourceLink(state.uncalibratedSourceLink).index()
            for state in track.trackStatesReversed
            if state.typeFlags.hasMeasurement and not state.typeFlags.isOutlier
        ]
        own = order[found]
        own = own[labels[own] == NO_TRACK]
        labels[own] = number
        number += len(own) > 0
    return labels


def measure(paths: list[Path], branches: int) -> dict[str, Any]:
    """Run the chain on events and return its physics, its time and its settings."""
    kalman_filter = KalmanFilter(branches)
    total: Evaluation | None = None
    seconds: list[dict[str, float]] = []
    sources = [source for path in paths for source in find_events(path)]
    for source in tqdm(sources, desc=f"{branches} branches", unit="event"):
        event = source.read(truth=True, cells=True)
        tracks, spent = kalman_filter.find_tracks(event.hits)
        seconds.append(spent)
        judged = evaluate_event(event, tracks)
        total = judged if total is None else total + judged
    assert total is not None, "no events"
    print(total.table())
    mean = {step: float(np.mean([each[step] for each in seconds])) for step in seconds[0]}
    mean["total"] = sum(mean.values())
    print("processor seconds an event:", {step: round(value, 3) for step, value in mean.items()})
    return {
        "branches": branches,
        "pyacts": metadata.version("pyacts"),
        "seconds_per_event": mean,
        **total.to_json(),
    }


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", nargs="+", type=Path, help="folders or events in TrackML format")
    parser.add_argument("--branches", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()
    results = [measure(options.events, branches) for branches in options.branches]
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
