"""What a server answers: exactly what the pipeline gives in process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from served import FREE_PORTS
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.engines.reference import ReferencePipeline
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Hits
from trackserve.pipeline.features import feature_matrix
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def pipeline(tiny_bundle):
    return ReferencePipeline(tiny_bundle)


def test_labels_equal_those_found_in_process(url, pipeline):
    with Client(url) as client:
        for seed in range(5):
            hits = straight_tracks(tracks=40, noise=30, seed=seed)
            expected = pipeline.find_tracks(hits)
            assert len(expected) > 1
            np.testing.assert_array_equal(client.find_tracks(hits).labels, expected.labels)


def test_features_give_the_same_labels_as_hits(url, pipeline):
    hits = straight_tracks(tracks=40, noise=30)
    spec = pipeline.bundle.features
    features = feature_matrix(hits.table(spec.wire_columns), spec)
    with Client(url) as client:
        labels = client.find_tracks_from_features(features).labels
    np.testing.assert_array_equal(labels, pipeline.find_tracks(hits).labels)


def test_a_client_of_the_published_service_gets_its_answer(server, pipeline):
    hits = straight_tracks(tracks=40, noise=30)
    r, phi = np.hypot(hits.x, hits.y), np.arctan2(hits.y, hits.x)
    features = np.stack([r, phi, hits.z], axis=1) / np.float32([1000, 3.2, 1000])
    with tritonclient.grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        metadata = client.get_model_metadata("exatrkx")
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
            ("FEATURES", "FP32", [-1, 3])
        ]
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [
            ("LABELS", "INT64", [-1]),
            ("WARNING", "BYTES", [1]),  # in no answer to right features
        ]
        sent = tritonclient.grpc.InferInput("FEATURES", list(features.shape), "FP32")
        sent.set_data_from_numpy(features)
        wanted = tritonclient.grpc.InferRequestedOutput("LABELS")
        labels = client.infer("exatrkx", [sent], outputs=[wanted]).as_numpy("LABELS")
        # The one in C++ names no output.
        (alone,) = client.infer("exatrkx", [sent]).get_response().outputs
        assert alone.name == "LABELS"
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, pipeline.find_tracks_from_features(features).labels)


@pytest.mark.parametrize(
    "positions",
    [
        pytest.param(np.zeros((0, 3)), id="no hit"),
        pytest.param(np.ones((1, 3)), id="one hit"),
        pytest.param(np.full((50, 3), 100.0), id="all hits identical"),
        pytest.param(np.diag([3e4, 3e5, 3e6]), id="hits far apart"),
    ],
)
def test_an_event_without_tracks_gets_an_empty_answer(url, positions):
    with Client(url) as client:
        tracks = client.find_tracks(positions)
    assert len(tracks) == 0
    assert tracks.labels.tolist() == [NO_TRACK] * len(positions)


def test_permuting_the_hits_only_renumbers_the_tracks(url):
    hits = straight_tracks(tracks=40, noise=30)
    order = np.random.default_rng(5).permutation(len(hits))
    with Client(url) as client:
        labels = client.find_tracks(hits).labels
        permuted = client.find_tracks(hits.select(order)).labels
    pairs = set(zip(labels[order].tolist(), permuted.tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert (NO_TRACK, NO_TRACK) in pairs


def test_clients_at_once_each_get_their_own_answer(server, pipeline):
    events = [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(40)]

    def served(hits: Hits) -> np.ndarray:
        with Client(server.grpc_url) as client:
            return client.find_tracks(hits).labels

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(served, events))
    for hits, labels in zip(events, answers, strict=True):
        np.testing.assert_array_equal(labels, pipeline.find_tracks(hits).labels)


def test_an_event_alone_and_one_of_many_get_the_same_answer(url, pipeline):
    # After a pause a small event is answered at once, one close behind another by a worker.
    hits = straight_tracks(tracks=40, noise=30)
    expected = pipeline.find_tracks(hits).labels
    bad = hits.table(("x", "y", "z"))
    bad[3, 1] = np.nan
    with Client(url) as client:
        for pause in (0.01, 0.01, 0.0, 0.0, 0.01, 0.0):
            time.sleep(pause)
            np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
            time.sleep(pause)
            with pytest.raises(InputError, match="hit row 3: y is nan"):
                client.find_tracks(bad)


@pytest.mark.parametrize("shape", ["monolith", "ensemble"])
def test_networks_from_elsewhere_are_served(shape, tmp_path):
    bundle = write_tiny_bundle(
        tmp_path / "foreign",
        features=12,
        dimension=6,
        width=20,
        radius=2.0,
        method="walk",
        logit_column=True,
    )
    settings = Settings(shape=shape, instances={"gnn": 2} if shape == "ensemble" else {})
    hits = straight_tracks(tracks=40, noise=30)
    with (
        serve(bundle, settings, **FREE_PORTS) as server,
        Client(server.grpc_url) as client,
    ):
        says = client.description
        labels = client.find_tracks(hits).labels
        bare = client.find_tracks(np.stack([hits.x, hits.y, hits.z], axis=1)).labels
    expected = ReferencePipeline(bundle).find_tracks(hits)
    assert len(expected) > 5
    np.testing.assert_array_equal(labels, expected.labels)
    assert says.columns == (*"xyz", "volume_id", "layer_id", "cells", "length_u", "charge")
    assert (says.bundle, says.digest) == (bundle.name, bundle.digest())
    filled = hits.table(says.columns)
    filled[:, 3:] = [says.absent[c] for c in says.columns[3:]]
    features = feature_matrix(filled, bundle.features)
    np.testing.assert_array_equal(
        bare, ReferencePipeline(bundle).find_tracks_from_features(features).labels
    )


def test_management_endpoints_are_closed(server):
    address = server.grpc_url.removeprefix("grpc://")
    with tritonclient.grpc.InferenceServerClient(address) as client:
        for attempt in (
            lambda: client.load_model("track_finding"),
            lambda: client.unload_model("track_finding"),
            lambda: client.register_system_shared_memory("region", "/key", 64),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
            lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        ):
            with pytest.raises(InferenceServerException):
                attempt()
        assert client.is_model_ready("track_finding")


@pytest.mark.parametrize("shape", ["monolith", "ensemble"])
def test_a_bundle_with_triplets_is_served_as_it_runs_in_process(shape):
    bundle = read_bundle()
    assert bundle.triplets is not None
    hits = straight_tracks(tracks=40, noise=30)
    assert bundle.second_pass is not None
    expected = open_pipeline(bundle, engine="reference").find_tracks(hits)
    assert len(expected) > 1
    with (
        serve(
            bundle, Settings(shape=shape, precision="float32", max_hits=2000), **FREE_PORTS
        ) as server,
        Client(server.grpc_url) as client,
    ):
        np.testing.assert_array_equal(client.find_tracks(hits).labels, expected.labels)
