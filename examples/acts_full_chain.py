"""A full ACTS chain with tracks from the service, beside ACTS' own seeding and Kalman filter.

    python examples/acts_full_chain.py [--pileup 200] [--events 5] [--conditions NAME] [--bundle DIR] [-o chain]

Pythia 8 makes collisions, Fatras carries the particles through the Generic detector, digitisation
blurs their crossings by pitch / sqrt(12). The same events then go through three chains:

    service   space points -> trackserve -> ACTS' Kalman fit
    ckf       space points of pixels -> triplet seeding -> combinatorial Kalman filter (CKF)
    combined  space points -> trackserve -> CKF that starts from those tracks

All end in ACTS' greedy ambiguity resolution and are judged by ACTS' own truth matching (double
majority) and performance writers: efficiency, fakes, duplicates, residuals and pulls of the fitted
parameters. Without ``--servers`` a bundle is served here, the shipped one if none is given. Needs the extras sim, plot and
server.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

import acts
import acts.examples
import acts.examples.json
import numpy as np
from acts_chain_results import CHAINS, draw, judge, show

from trackserve.acts import TrackFinding, add_track_finding
from trackserve.bundle import read_bundle
from trackserve.data.conditions import CONDITIONS
from trackserve.data.detector import PITCH, QUIET, build_detector, build_field
from trackserve.data.generate import Collisions
from trackserve.data.transport import acts_particles
from trackserve.engines.registry import fastest
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

PIXELS, STRIPS = (7, 8, 9), (12, 13, 14, 16, 17, 18)
GEV = acts.UnitConstants.GeV
SEED = 2026
SEEDING = {
    "minPt": 0.9,
    "impactMax": 2.0,
    "cotThetaMax": 27.9,  # |eta| < 4.02
    "collisionRegionMin": -200.0,
    "collisionRegionMax": 200.0,
    "interactionPointCut": True,
    "rMin": 28.0,
    "rMax": 200.0,
    "zMin": -1600.0,
    "zMax": 1600.0,
    "rMinMiddle": 32.0,
    "rMaxMiddle": 150.0,
    "useVariableMiddleSPRange": False,
    **{f"deltaRMin{which}": 4.0 for which in ("", "Top", "Bottom")},
    **{f"deltaRMax{which}": 80.0 for which in ("", "Top", "Bottom")},
    "sigmaScattering": 2.5,
    "radLengthPerSeed": 0.1,
    "maxSeedsPerSpM": 1,
}
"""Tuned for |eta| < 4 in the comparison of docs/physics.md."""


class Generate(acts.examples.IAlgorithm):
    """Puts the particles of an event's collisions into the event store."""

    def __init__(self, conditions: str, pileup: float) -> None:
        super().__init__("Generate", QUIET)
        self._collisions, self._one = Collisions(CONDITIONS[conditions], pileup), Lock()
        kind = acts.examples.SimParticleContainer
        self._particles = acts.examples.WriteDataHandle(self, kind, "OutputParticles")
        self._particles.initialize("generated")

    def execute(self, context: Any) -> Any:
        """Generate an event; it depends on its number only."""
        random = np.random.default_rng([SEED, context.eventNumber])
        with self._one:
            generated = self._collisions.generate(random)
        particles = acts.examples.SimParticleContainer()
        for particle in acts_particles(generated):
            particles.insert(particle)
        self._particles(context, particles)
        return acts.examples.ProcessCode.SUCCESS


class Chain:
    """The sequencer, its geometry and field, and the writers that judge."""

    def __init__(self, events: int, threads: int) -> None:
        self.detector = build_detector()
        self.geometry, self.field = self.detector.trackingGeometry(), build_field("solenoid")
        self.sequencer = acts.examples.Sequencer(
            events=events, numThreads=threads, logLevel=acts.logging.WARNING, trackFpes=False
        )
        self.finders: dict[str, Any] = {}
        self.fitters: dict[str, Any] = {}

    def add(self, algorithm: Any, **settings: Any) -> None:
        """Add an algorithm with these settings."""
        self.sequencer.addAlgorithm(algorithm(level=QUIET, **settings))

    def simulate(self, conditions: str, pileup: float, folder: Path) -> None:
        """Collisions, detector, digitisation, the particles to be found, space points."""
        random = acts.examples.RandomNumbers(seed=SEED)
        self.sequencer.addAlgorithm(Generate(conditions, pileup))
        self.add(
            acts.examples.FatrasSimulation,
            inputParticles="generated",
            outputParticles="particles",
            outputSimHits="crossings",
            randomNumbers=random,
            trackingGeometry=self.geometry,
            magneticField=self.field,
            generateHitsOnSensitive=True,
            emScattering=True,
            emEnergyLossIonisation=True,
            emEnergyLossRadiation=True,
            emPhotonConversion=True,
            pMin=0.1 * GEV,
        )
        settings = folder / "digitisation.json"
        settings.write_text(json.dumps(smearing()))
        self.add(
            acts.examples.DigitizationAlgorithm,
            digitizationConfigs=acts.examples.json.readDigiConfigFromJson(str(settings)),
            surfaceByIdentifier=self.geometry.geoIdSurfaceMap(),
            randomNumbers=random,
            inputSimHits="crossings",
            outputMeasurements="measurements",
            outputMeasurementSubset="subset",
            outputClusters="clusters",
            outputMeasurementParticlesMap="measurement-particles",
            outputMeasurementSimHitsMap="measurement-crossings",
            outputParticleMeasurementsMap="particle-measurements",
            outputSimHitMeasurementsMap="crossing-measurements",
            doMerge=False,
        )
        self.add(
            acts.examples.ParticleSelector,
            inputParticles="particles",
            inputParticleMeasurementsMap="particle-measurements",
            outputParticles="targets",
            pt=(1 * GEV, np.inf),
            absEta=(0, 4),
            rho=(0, 2),
            measurementsMin=6,
            removeNeutral=True,
        )
        for name, volumes in (("spacepoints", PIXELS + STRIPS), ("pixels", PIXELS)):
            self.add(
                acts.examples.SpacePointMaker,
                inputMeasurements="subset",
                outputSpacePoints=name,
                trackingGeometry=self.geometry,
                geometrySelection=[acts.GeometryIdentifier(volume=v) for v in volumes],
            )

    def find_with_service(self, servers: str) -> TrackFinding:
        """Tracks from the service; ACTS' Kalman fit, and the CKF that starts from them."""
        finding = add_track_finding(
            self.sequencer,
            servers,
            measurements="subset",
            geometry=self.geometry,
            field=self.field,
            level=QUIET,
        )
        self.add(
            acts.examples.TrackFittingAlgorithm,
            inputMeasurements="measurements",
            inputProtoTracks="estimated_prototracks",
            inputInitialTrackParameters="estimatedparameters",
            inputClusters="",
            outputTracks="service-candidates",
            fit=acts.examples.makeKalmanFitterFunction(
                self.geometry,
                self.field,
                multipleScattering=True,
                energyLoss=True,
                reverseFilteringMomThreshold=0.0,
                reverseFilteringCovarianceScaling=100.0,
                freeToBoundCorrection=acts.examples.FreeToBoundCorrection(False),
                chi2Cut=float("inf"),
                useJosephFormulation=False,
                level=QUIET,
            ),
            calibrator=acts.examples.makePassThroughCalibrator(),
            referenceSurface=acts.Surface.createPerigee(acts.Vector3(0, 0, 0)),
        )
        self._finish("service")
        self._follow("combined", "estimated_seeds", "estimatedparameters")
        return finding

    def find_with_ckf(self) -> None:
        """ACTS' own chain."""
        self.add(
            acts.examples.GridTripletSeedingAlgorithm,
            inputSpacePoints="pixels",
            outputSeeds="triplets",
            bFieldInZ=2 * acts.UnitConstants.T,
            **SEEDING,
        )
        self.add(
            acts.examples.TrackParamsEstimationAlgorithm,
            inputSeeds="triplets",
            outputSeeds="ckf-seeds",
            outputTrackParameters="ckf-parameters",
            trackingGeometry=self.geometry,
            magneticField=self.field,
        )
        self._follow("ckf", "ckf-seeds", "ckf-parameters")

    def _follow(self, name: str, seeds: str, parameters: str) -> None:
        """Add the CKF, single-branch as in docs/physics.md."""
        finder = acts.examples.TrackFindingAlgorithm
        self.add(
            finder,
            inputMeasurements="subset",
            inputInitialTrackParameters=parameters,
            inputSeeds=seeds,
            outputTracks=f"{name}-candidates",
            trackingGeometry=self.geometry,
            magneticField=self.field,
            measurementSelectorCfg=acts.MeasurementSelector.Config(
                [(acts.GeometryIdentifier(), ([], [30.0], [60.0], [1]))]
            ),
            trackSelectorCfg=acts.TrackSelector.Config(ptMin=0.5 * GEV, minMeasurements=6),
            findTracks=finder.makeTrackFinderFunction(self.geometry, self.field, QUIET),
            findTracksBrem=finder.makeBremTrackFinderFunction(self.geometry, self.field, QUIET),
            seedDeduplication=True,
            stayOnSeed=True,
            twoWay=True,
            recordMaterialStates=False,
            pixelVolumeIds=list(PIXELS),
            stripVolumeIds=list(STRIPS),
            maxPixelHoles=1,
            maxStripHoles=2,
        )
        self._finish(name)

    def _finish(self, name: str) -> None:
        """Resolve ambiguities, match with the truth, judge."""
        self.add(
            acts.examples.GreedyAmbiguityResolutionAlgorithm,
            inputTracks=f"{name}-candidates",
            outputTracks=f"{name}-tracks",
            maximumSharedHits=3,
            nMeasurementsMin=6,
            maximumIterations=1_000_000,
        )
        matching = {
            "inputTrackParticleMatching": f"{name}-particles",
            "inputParticles": "targets",
            "inputTracks": f"{name}-tracks",
        }
        self.add(
            acts.examples.TrackTruthMatcher,
            inputTracks=f"{name}-tracks",
            inputParticles="particles",
            inputMeasurementParticlesMap="measurement-particles",
            outputTrackParticleMatching=f"{name}-particles",
            outputParticleTrackMatching=f"{name}-found",
            doubleMatching=True,
        )
        self.finders[name] = acts.examples.PythonPatternRecognitionPerformanceWriter(
            level=QUIET,
            inputParticleTrackMatching=f"{name}-found",
            inputParticleMeasurementsMap="particle-measurements",
            **matching,
        )
        self.fitters[name] = acts.examples.PythonTrackParameterPerformanceWriter(
            level=QUIET, **matching
        )
        self.sequencer.addWriter(self.finders[name])
        self.sequencer.addWriter(self.fitters[name])


def smearing() -> dict[str, Any]:
    """Return ACTS' settings: positions blurred by pitch / sqrt(12)."""

    def blur(index: int, pitch: float) -> dict[str, Any]:
        return {"index": index, "mean": 0.0, "stddev": pitch / 12**0.5, "type": "Gauss"}

    entries = [
        {"volume": volume, "value": {"smearing": [blur(0, u), blur(1, v)]}}
        for volume, (u, v) in PITCH.items()
    ]
    header = {"format-version": 0, "value-identifier": "digitization-configuration"}
    return {"acts-geometry-hierarchy-map": header, "entries": entries}


def main() -> None:
    """Run the three chains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pileup", type=float, default=200.0)
    parser.add_argument("--events", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=2, help="one more than cores keeps both busy"
    )
    parser.add_argument("--servers", help="host:port, several with commas; one is started if none")
    parser.add_argument("--bundle", type=Path, help="served if no server is given")
    parser.add_argument("--conditions", choices=sorted(CONDITIONS), default="trackml")
    parser.add_argument("-o", "--output", type=Path, default=Path("chain"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = options.servers
        if servers is None:
            ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
            servers = stack.enter_context(
                serve(read_bundle(options.bundle), Settings(engine=fastest()), **ports)
            ).grpc_url
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trackserve-")))
        chain = Chain(options.events, options.threads)
        chain.simulate(options.conditions, options.pileup, folder)
        finding = chain.find_with_service(servers)
        chain.find_with_ckf()
        chain.sequencer.run()
    found = {name: judge(chain, name) for name in CHAINS}
    show(found)
    print(finding.report())
    record = {
        "pileup": options.pileup,
        "conditions": options.conditions,
        "events": options.events,
        "seed": SEED,
        "chains": found,
    }
    (options.output / "chains.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(chain, options.output)
    print(f"wrote {options.output}/chains.json and chains.png")


if __name__ == "__main__":
    main()
