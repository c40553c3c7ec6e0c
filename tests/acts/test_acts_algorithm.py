"""Track finding in ACTS' Sequencer: particle-gun events in the Generic detector, real servers."""

from __future__ import annotations

import itertools
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import acts
import acts.examples
import numpy as np
import pytest
from acts.examples.simulation import (
    EtaConfig,
    MomentumConfig,
    ParticleConfig,
    PhiConfig,
    addDigitization,
    addFatras,
    addParticleGun,
)

from served import FREE_PORTS
from trackserve.acts import TrackFinding, add_track_finding
from trackserve.acts.finders import InProcess, why_no_tracks
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.data import find_events
from trackserve.data.detector import PITCH, QUIET, build_detector, build_field
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.event import Hits
from trackserve.pipeline.features import hit_features
from trackserve.serving.service import serve

pytestmark = pytest.mark.service
PIXELS, STRIPS = (7, 8, 9), (12, 13, 14, 16, 17, 18)
EVENTS = Path(__file__).parents[2] / "examples/events/pu20"
MUONS = 60
GEV = acts.UnitConstants.GeV


@pytest.fixture(scope="module")
def server():
    """The shipped bundle, which knows this detector."""
    with serve(read_bundle(), **FREE_PORTS) as server:
        yield server


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    detector = build_detector()
    settings = tmp_path_factory.mktemp("acts") / "digitisation.json"
    settings.write_text(json.dumps(smearing()))
    return detector, build_field("constant"), settings


def smearing():
    """ACTS' settings: positions blurred by pitch / sqrt(12)."""

    def blur(index, pitch):
        return {"index": index, "mean": 0.0, "stddev": pitch / 12**0.5, "type": "Gauss"}

    entries = [
        {"volume": volume, "value": {"smearing": [blur(0, u), blur(1, v)]}}
        for volume, (u, v) in PITCH.items()
    ]
    header = {"format-version": 0, "value-identifier": "digitization-configuration"}
    return {"acts-geometry-hierarchy-map": header, "entries": entries}


class Collect(acts.examples.IAlgorithm):
    """Keeps the space points and proto tracks of each event; takes a while over each, if asked."""

    def __init__(self, pause=0.0):
        super().__init__("Collect", QUIET)
        self.pause, self.points, self.tracks, self.busy = pause, {}, {}, []
        kinds = {"spacepoints": acts.SpacePointContainer}
        kinds["prototracks"] = acts.examples.ProtoTrackContainer
        self.handles = {}
        for name, kind in kinds.items():
            self.handles[name] = acts.examples.ReadDataHandle(self, kind, name)
            self.handles[name].initialize(name)

    def execute(self, context):
        points = self.handles["spacepoints"](context.eventStore)
        event = context.eventNumber
        self.points[event] = np.stack([np.array(getattr(points, c)) for c in "xyz"], axis=1)
        tracks = self.handles["prototracks"](context.eventStore)
        self.tracks[event] = [list(track) for track in tracks]
        began = time.monotonic()
        time.sleep(self.pause)
        self.busy.append((began, time.monotonic()))
        return acts.examples.ProcessCode.SUCCESS


def job(detector, *, events=2, threads=1, volumes=PIXELS + STRIPS, kind="eMuon"):
    """A sequencer that makes space points of muons."""
    device, field, settings = detector
    geometry = device.trackingGeometry()
    sequencer = acts.examples.Sequencer(
        events=events, numThreads=threads, logLevel=QUIET, trackFpes=False
    )
    random = acts.examples.RandomNumbers(seed=7)
    addParticleGun(
        sequencer,
        MomentumConfig(1 * GEV, 5 * GEV, transverse=True),
        EtaConfig(-2.5, 2.5),
        PhiConfig(0, 2 * np.pi),
        ParticleConfig(MUONS, getattr(acts.PdgParticle, kind), randomizeCharge=kind != "eGamma"),
        rnd=random,
    )
    addFatras(sequencer, geometry, field, rnd=random, logLevel=QUIET)
    addDigitization(sequencer, geometry, field, digiConfigFile=settings, rnd=random, logLevel=QUIET)
    sequencer.addAlgorithm(
        acts.examples.SpacePointMaker(
            level=QUIET,
            inputMeasurements="measurement_subset",
            outputSpacePoints="spacepoints",
            trackingGeometry=geometry,
            geometrySelection=[acts.GeometryIdentifier(volume=volume) for volume in volumes],
        )
    )
    return sequencer


def run(detector, servers, *, pause=0.0, **options):
    settings = {
        key: options.pop(key) for key in ("events", "threads", "volumes", "kind") if key in options
    }
    sequencer = job(detector, **settings)
    finding = add_track_finding(sequencer, servers, level=QUIET, **options)
    collected = Collect(pause)
    sequencer.addAlgorithm(collected)
    sequencer.run()
    return finding, collected


@pytest.fixture(scope="module")
def expected(detector):
    return run(detector, None, events=4)[1].tracks


def test_served_tracks_equal_the_clients_and_those_in_process(detector, server, expected):
    finding, collected = run(detector, server.grpc_url, events=4)
    assert collected.tracks == expected
    with Client(server.grpc_url) as client:
        for event, points in collected.points.items():
            labels = client.find_tracks(points).labels
            # Here a measurement has the number of its space point: all volumes, in order.
            assert (
                len(points)
                == sum(len(set(t)) for t in collected.tracks[event]) + (labels < 0).sum()
            )
            found = {frozenset(track) for track in collected.tracks[event]}
            assert found == {
                frozenset(np.flatnonzero(labels == track).tolist())
                for track in range(labels.max() + 1)
            }
    report = finding.report()
    assert report.events == 4
    assert report.hits == sum(len(points) for points in collected.points.values())
    assert report.tracks > 0.8 * 4 * MUONS
    for event, tracks in collected.tracks.items():
        distance = (collected.points[event] ** 2).sum(axis=1)
        assert all(np.diff(distance[track]).min() >= 0 for track in tracks)


def test_several_threads_find_the_same_while_requests_are_in_flight(detector, server, expected):
    finding, collected = run(detector, server.grpc_url, events=4, threads=3, pause=0.5)
    assert collected.tracks == expected
    spans = sorted(collected.busy)
    # Another event went through the service while the first ones were worked on.
    assert any(begin < end for (_, end), (begin, _) in itertools.pairwise(spans))
    assert finding.report().events == 4


def test_measurements_without_a_space_point_are_on_no_track(detector, server):
    finding, collected = run(
        detector, server.grpc_url, volumes=PIXELS, measurements="measurement_subset"
    )
    report = finding.report()
    assert report.measurements > 1.5 * report.hits
    assert "more than space points" in str(report)
    assert report.tracks > 0
    assert report.hits == sum(map(len, collected.points.values()))


def test_an_event_that_fails_ends_the_job(detector):
    sequencer = job(detector)
    finding = add_track_finding(sequencer, "127.0.0.1:9", level=QUIET, tries=1)
    with pytest.raises(RuntimeError):
        sequencer.run()
    assert finding.report().failed == 1
    assert "127.0.0.1:9" in finding.report().last_failure


def test_an_event_that_fails_is_left_out(detector):
    finding, collected = run(detector, "127.0.0.1:9", tries=1, on_failure="skip", events=3)
    assert collected.tracks == {}
    report = finding.report()
    assert (report.events, report.skipped) == (3, 3)
    assert "3 skipped; the last: " in str(report)
    assert "127.0.0.1:9" in str(report)


def test_an_event_that_fails_is_found_here(detector, expected):
    finding, collected = run(detector, "127.0.0.1:9", tries=1, on_failure="fall back", events=4)
    assert collected.tracks == expected
    assert finding.report().fell_back == 4


def test_an_event_without_hits_says_so(detector, server, caplog):
    finding, collected = run(detector, server.grpc_url, kind="eGamma", volumes=(8,), events=1)
    if len(collected.points[0]) == 0:
        assert finding.report().empty == {"there was no hit": 1}
        assert "no tracks among 0 hits" in caplog.text


@pytest.mark.parametrize(
    ("positions", "stage"),
    [
        (np.array([[30.0, 0, 0], [0, 500.0, 0], [0, -900.0, 2000.0]]), "neighbours, where 3 hits"),
        (
            np.random.default_rng(0).uniform(-700, 700, (3000, 3)),
            "no track had 3 hits .* left [0-9]+ of [0-9]+",
        ),
    ],
)
def test_an_event_without_tracks_says_where_the_last_edge_was_cut(positions, stage):
    hits = Hits.from_positions(positions)
    finder = InProcess()
    assert len(finder.find_tracks(hits, "")) == 0
    assert re.search(stage, finder.why_no_tracks(hits))
    bundle = read_bundle()
    outputs = open_pipeline(bundle).run(hit_features(hits, bundle.features))
    assert why_no_tracks(outputs, bundle) == finder.why_no_tracks(hits)


def test_whether_edges_were_cut_or_tracks_dropped_is_known():
    bundle = read_bundle("hl-lhc")
    hits = next(iter(find_events(EVENTS))).read().hits
    outputs = open_pipeline(bundle).run(hit_features(hits, bundle.features))
    worse = replace(outputs, scored=replace(outputs.scored, scores=outputs.scored.scores / 100))
    cut = "the last edge was cut at gnn, where [0-9]+ edges came, the best with a score of 0.0"
    assert re.match(cut, why_no_tracks(worse, bundle))
    long = replace(bundle, track_builder=replace(bundle.track_builder, min_hits=100))
    dropped = "no track had 100 hits.*, though the cut at gnn left [1-9][0-9]* of [0-9]+ edges"
    assert re.match(dropped, why_no_tracks(outputs, long))


def test_parameters_are_estimated_for_acts_fit(detector, server):
    device, field, _ = detector
    geometry = device.trackingGeometry()
    sequencer = job(detector, events=2)
    add_track_finding(sequencer, server.grpc_url, geometry=geometry, field=field, level=QUIET)
    sequencer.addAlgorithm(
        acts.examples.TrackFittingAlgorithm(
            level=QUIET,
            inputMeasurements="measurements",
            inputProtoTracks="estimated_prototracks",
            inputInitialTrackParameters="estimatedparameters",
            inputClusters="",
            outputTracks="tracks",
            fit=acts.examples.makeKalmanFitterFunction(
                geometry,
                field,
                multipleScattering=True,
                energyLoss=True,
                reverseFilteringMomThreshold=0.0,
                reverseFilteringCovarianceScaling=1.0,
                freeToBoundCorrection=acts.examples.FreeToBoundCorrection(False),
                chi2Cut=float("inf"),
                useJosephFormulation=False,
                level=QUIET,
            ),
            calibrator=acts.examples.makePassThroughCalibrator(),
        )
    )
    fitted = Fitted()
    sequencer.addAlgorithm(fitted)
    sequencer.run()
    assert len(fitted.momenta) > 0.8 * 2 * MUONS
    good = [1 <= pt / GEV <= 5.5 for pt in fitted.momenta]
    assert np.mean(good) > 0.9


class Fitted(acts.examples.IAlgorithm):
    """Keeps the transverse momenta of fitted tracks."""

    def __init__(self):
        super().__init__("Fitted", QUIET)
        self.momenta = []
        self.handle = acts.examples.ReadDataHandle(
            self, acts.examples.ConstTrackContainer, "tracks"
        )
        self.handle.initialize("tracks")

    def execute(self, context):
        for track in self.handle(context.eventStore):
            self.momenta.append(abs(np.sin(track.theta) / track.qOverP))
        return acts.examples.ProcessCode.SUCCESS


@pytest.mark.parametrize(
    ("servers", "options", "message"),
    [
        (None, {"on_failure": "retry"}, "on_failure is 'retry'; expected one of fail, skip"),
        (None, {"fewest_hits": 2}, "fewest_hits is 2; a seed needs at least 3"),
        (None, {"timeout": 3}, "timeout is for servers, and none is given"),
        ("localhost", {}, "is not a server; expected host:port"),
        ("localhost:8001", {"timeout": -1}, "timeout is -1; expected more than 0"),
    ],
)
def test_wrong_options_are_refused(servers, options, message):
    with pytest.raises(InputError, match=message):
        TrackFinding(servers, level=QUIET, **options)
