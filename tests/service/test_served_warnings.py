"""Features in other scales than the bundle's: an answer with a warning, from a real server."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc

from served import counted, wait_for
from tiny_bundle import straight_tracks
from trackserve.client import AsyncClient, Client
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputWarning
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from trackserve.bundle import Bundle
    from trackserve.event import Float32, Int64
    from trackserve.serving.service import Service

pytestmark = pytest.mark.service
SENTENCE = r"the feature phi reaches 3.1\d*, expected at most 0.982, so the tracks may mean nothing: .* phi / 3.2,"


@pytest.fixture(scope="module")
def right(tiny_bundle: Bundle) -> Float32:
    return hit_features(straight_tracks(tracks=40, noise=30), tiny_bundle.features)


@pytest.fixture(scope="module")
def in_rad(right: Float32) -> Float32:
    return right * np.float32((1, 3.2, 1))


@pytest.fixture(scope="module")
def expected(tiny_bundle: Bundle, in_rad: Float32) -> Int64:
    with warnings.catch_warnings(action="ignore"):
        return (
            open_pipeline(tiny_bundle, engine="reference").find_tracks_from_features(in_rad).labels
        )


def test_the_client_warns_in_one_sentence(url: str, server: Service, right, in_rad, expected):
    name = 'trackserve_warnings_total{bundle="tiny",model="exatrkx"}'
    before = counted(server).get(name, 0.0)
    with Client(url) as client:
        client.find_tracks_from_features(right)  # a warning would be an error
        with pytest.warns(InputWarning, match=f"^{url}: {SENTENCE}") as caught:
            found = client.find_tracks_from_features(in_rad)
    assert len(caught) == 1
    np.testing.assert_array_equal(found.labels, expected)
    wait_for(server, name, before + 1)


def test_the_async_client_warns_too(server: Service, in_rad, expected):
    async def ask():
        async with AsyncClient(server.grpc_url) as client:
            return await client.find_tracks_from_features(in_rad)

    with pytest.warns(InputWarning, match=SENTENCE):
        np.testing.assert_array_equal(asyncio.run(ask()).labels, expected)


def test_who_names_an_output_gets_that_alone(server: Service, in_rad, expected):
    sent = tritonclient.grpc.InferInput("FEATURES", list(in_rad.shape), "FP32")
    sent.set_data_from_numpy(in_rad)
    wanted = tritonclient.grpc.InferRequestedOutput
    with tritonclient.grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        labels = client.infer("exatrkx", [sent], outputs=[wanted("LABELS")])
        asked = client.infer("exatrkx", [sent], outputs=[wanted("LABELS"), wanted("WARNING")])
    assert [output.name for output in labels.get_response().outputs] == ["LABELS"]
    np.testing.assert_array_equal(labels.as_numpy("LABELS"), expected)
    assert "phi reaches" in asked.as_numpy("WARNING")[0].decode()


def test_over_plain_http_the_sentence_can_be_read(monolith: Service, in_rad):
    data = {"name": "FEATURES", "datatype": "FP32", "shape": in_rad.shape, "data": in_rad.tolist()}
    request = urllib.request.Request(
        f"{monolith.http_url}/v2/models/exatrkx/infer",
        json.dumps({"inputs": [data]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        outputs = {each["name"]: each["data"] for each in json.load(answer)["outputs"]}
    assert "phi reaches" in outputs["WARNING"][0]
