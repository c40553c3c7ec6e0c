"""A process is killed in the middle of many requests: every event is answered, once, rightly."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.client import AsyncClient, Client
from trackserve.client.fallback import Fallback
from trackserve.engines.reference import ReferencePipeline
from trackserve.serving.process import children
from trackserve.serving.service import serve

pytestmark = pytest.mark.service
EVENTS = [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(20)]
REQUESTS = 400


@pytest.mark.parametrize("victim", ["model", "server"])
def test_a_killed_process_loses_no_event(tiny_bundle, victim):
    expected = [ReferencePipeline(tiny_bundle).find_tracks(hits).labels for hits in EVENTS]

    async def ask(server):
        seen = []
        events = (EVENTS[i % len(EVENTS)] for i in range(REQUESTS))
        async with AsyncClient(server.grpc_url, timeout=300) as client:
            async for answer in client.find_all(events, ordered=victim == "model"):
                labels = answer.tracks.labels
                np.testing.assert_array_equal(labels, expected[answer.index % len(EVENTS)])
                seen.append(answer.index)
                if len(seen) == REQUESTS // 2:
                    pid = children(server.pid) if victim == "model" else [server.pid]
                    for each in pid:
                        os.kill(each, signal.SIGKILL)
        return seen

    with serve(tiny_bundle, **FREE_PORTS) as server:
        seen = asyncio.run(ask(server))
        assert len(server.restarted) == 1
    assert sorted(seen) == list(range(REQUESTS))
    if victim == "model":
        assert seen == sorted(seen)


def test_a_fallback_answers_where_no_server_does(tiny_bundle):
    expected = ReferencePipeline(tiny_bundle).find_tracks(EVENTS[5]).labels
    with Client("127.0.0.1:9", fallback=Fallback(tiny_bundle.path, engine="reference")) as client:
        np.testing.assert_array_equal(client.find_tracks(EVENTS[5]).labels, expected)
