"""Compact hits and labels: the tracks of the rounded hits, over both protocols, in both shapes, batched or not."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.bundle import read_bundle, shipped_bundle
from trackserve.client import AsyncClient, Client
from trackserve.client.connection import split_url
from trackserve.contract.compact import decode_hits, encode_hits
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

pytestmark = pytest.mark.service

STEP = 0.05
EVENTS = [straight_tracks(tracks=i, noise=i % 7, seed=i) for i in (40, 0, 1, 25)]


@pytest.fixture(scope="module", params=["monolith", "ensemble"])
def served(request):
    """A server behind its guard, and what it finds in the rounded hits of each event."""
    bundle = read_bundle(shipped_bundle())
    settings = Settings(shape=request.param, max_hits=2000)
    pipeline = open_pipeline(bundle, engine=settings.engine)
    rounded = [decode_hits(encode_hits(event.table("xyz"), STEP)) for event in EVENTS]
    with serve(bundle, settings, **FREE_PORTS) as server:
        yield server, [pipeline.find_tracks(hits, parameters=True) for hits in rounded]


def test_tracks_are_those_of_the_rounded_hits(served):
    server, expected = served
    assert len(expected[0]) > 10
    for url in (server.grpc_url, server.http_url):
        with Client(url, compact=STEP) as client:
            for event, tracks in zip(EVENTS, expected, strict=True):
                np.testing.assert_array_equal(client.find_tracks(event).labels, tracks.labels)
            fitted = client.find_tracks(EVENTS[0], parameters=True)
            np.testing.assert_array_equal(fitted.labels, expected[0].labels)
            assert fitted.parameters.matrix().tobytes() == expected[0].parameters.matrix().tobytes()


def test_many_in_flight(served):
    server, expected = served

    async def ask():
        async with AsyncClient(server.grpc_url, compact=STEP) as client:
            return [answer.tracks async for answer in client.find_all(3 * EVENTS)]

    for found, tracks in zip(asyncio.run(ask()), 3 * expected, strict=True):
        np.testing.assert_array_equal(found.labels, tracks.labels)


def test_hits_without_room_go_as_they_are(served):
    server, _ = served
    table = EVENTS[0].table("xyz")
    with Client(server.grpc_url) as plain, Client(server.grpc_url, compact=1e-9) as client:
        np.testing.assert_array_equal(
            client.find_tracks(table).labels, plain.find_tracks(table).labels
        )
    table[3, 1] = np.nan
    with (
        Client(server.grpc_url, compact=STEP) as client,
        pytest.raises(InputError, match="row 3: y is nan"),
    ):
        client.find_tracks(table)


def test_an_older_server_gets_the_hits_as_they_are(served, monkeypatch):
    server, _ = served
    with Client(server.grpc_url, compact=STEP) as client, Client(server.grpc_url) as plain:
        expected = plain.find_tracks(EVENTS[0]).labels
        client._described = dataclasses.replace(client.description, compact=0)
        np.testing.assert_array_equal(client.find_tracks(EVENTS[0]).labels, expected)
        # One that is asked after a newer one had been.
        client._described = dataclasses.replace(client.description, compact=1)
        monkeypatch.setattr("trackserve.client.core.encode_hits", lambda *_: np.zeros(16, np.uint8))
        np.testing.assert_array_equal(client.find_tracks(EVENTS[0]).labels, expected)


def test_who_asks_for_everything_gets_the_plain_labels_alone(served):
    server, _ = served
    table = EVENTS[0].table("xyz")
    sent = tritonclient.grpc.InferInput("HITS", list(table.shape), "FP32")
    sent.set_data_from_numpy(table)
    with tritonclient.grpc.InferenceServerClient(split_url(server.grpc_url)[1]) as client:
        answer = client.infer("track_finding", [sent]).get_response()
    assert [output.name for output in answer.outputs] == ["LABELS"]


def tensor(name, array):
    kinds = {"float32": "FP32", "uint8": "UINT8"}
    sent = tritonclient.grpc.InferInput(name, list(array.shape), kinds[str(array.dtype)])
    sent.set_data_from_numpy(array)
    return sent


def test_other_requests_are_refused(served):
    server, _ = served
    table = EVENTS[0].table("xyz")
    data = encode_hits(table)
    many = encode_hits(np.zeros((2001, 3), np.float32))
    wide = encode_hits(np.zeros((5, 4), np.float32))
    refusals = {
        "inputs": [],
        "input": [tensor("HITS", table), tensor("HITS_COMPACT", data)],
        "bytes": [tensor("HITS_COMPACT", data[:-1])],
        "version 7": [tensor("HITS_COMPACT", np.append(np.uint8(7), data[1:]))],
        "2,001 hits; this server takes at most 2,000": [tensor("HITS_COMPACT", many)],
        "4 columns; expected 3: x, y, z": [tensor("HITS_COMPACT", wide)],
    }
    with tritonclient.grpc.InferenceServerClient(split_url(server.grpc_url)[1]) as client:
        for message, inputs in refusals.items():
            with pytest.raises(InferenceServerException, match=message) as caught:
                client.infer("track_finding", inputs)
            assert "INVALID_ARGUMENT" in str(caught.value.status())
        assert client.infer("track_finding", [tensor("HITS_COMPACT", data)]) is not None
