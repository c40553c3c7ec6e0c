"""What the server reports about itself: its own counters, and a line in the log for a request."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from served import FREE_PORTS, counted, wait_for
from tiny_bundle import straight_tracks
from trackserve.client import Client
from trackserve.contract import metrics
from trackserve.contract.tensors import STAGES
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError, UnreachableError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

pytestmark = pytest.mark.service
HITS = straight_tracks(tracks=20, noise=10)


def test_the_pipelines_own_counters_are_among_the_metrics(server, tiny_bundle):
    outputs = ReferencePipeline(tiny_bundle).run(_features(tiny_bundle))
    name = 'trackserve_requests_total{bundle="tiny",model="track_finding",outcome="%s"}'
    time.sleep(1.0)  # what other tests asked for has been reported
    before = counted(server)
    with Client(server.grpc_url) as client:
        client.find_tracks(HITS)
        client.find_tracks(HITS)
        with pytest.raises(InputError):
            client.find_tracks(np.full((4, 3), np.nan))
    wait_for(server, name % "unusable", before.get(name % "unusable", 0) + 1)
    wait_for(server, name % "answered", before.get(name % "answered", 0) + 2)
    for stage in STAGES:
        events = f'trackserve_events_total{{bundle="tiny",stage="{stage.name}"}}'
        wait_for(server, events, before.get(events, 0) + 2)
    more = {key: value - before.get(key, 0.0) for key, value in counted(server).items()}
    assert more[name % "answered"] == 2
    assert more[name % "unusable"] == 1
    assert more['trackserve_hits_total{bundle="tiny"}'] == 2 * len(HITS)
    assert more['trackserve_tracks_total{bundle="tiny"}'] == 2 * len(outputs.tracks)
    assert more['trackserve_pending_requests{bundle="tiny",model="track_finding"}'] == 0
    sized = '{bundle="tiny",%smodel="track_finding",size="small"}'
    bucket = "trackserve_latency_seconds_bucket" + sized
    within = [more[bucket % f'le="{le:g}",'] for le in metrics.LATENCY_BOUNDS]
    assert within == sorted(within)
    assert within[-1] == more[bucket % 'le="+Inf",'] == 2
    assert more["trackserve_latency_seconds_count" + sized % ""] == 2
    assert 0 < more["trackserve_latency_seconds_sum" + sized % ""] < 60
    edges = {
        stage: more[f'trackserve_edges_total{{bundle="tiny",stage="{stage}"}}']
        for stage in ("neighbours", "cut", "triplets")
    }
    assert edges == {
        "neighbours": 2 * outputs.candidates.edges.shape[1],
        "cut": 2 * outputs.filtered.edges.shape[1],
        "triplets": 2 * outputs.joined.edges.shape[1],
    }
    for stage in STAGES:
        assert more[f'trackserve_events_total{{bundle="tiny",stage="{stage.name}"}}'] == 2
        assert 0 < more[f'trackserve_seconds_total{{bundle="tiny",stage="{stage.name}"}}'] < 60
    names = {key.partition("{")[0] for key in more}
    # Those of engines that run on a device, and of traces.
    elsewhere = {metrics.DEVICE_BYTES.name, metrics.SPANS.name}
    assert names - elsewhere == {metric.name for metric in metrics.METRICS} - elsewhere


def _features(bundle):
    from trackserve.pipeline.features import hit_features

    return hit_features(HITS, bundle.features)


@pytest.mark.parametrize(
    ("logged", "outcomes"),
    [("all", ["answered", "unusable"]), ("failures", ["unusable"]), ("none", [])],
)
def test_a_request_has_a_line_in_the_log_by_the_name_that_the_client_knows(
    tiny_bundle, logged, outcomes
):
    with serve(tiny_bundle, Settings(log_requests=logged), **FREE_PORTS) as server:
        with Client(server.grpc_url) as client:
            client.find_tracks(HITS)
            known = {"answered": client.request_id}
            with pytest.raises(InputError) as raised:
                client.find_tracks(np.full((4, 3), np.nan), request_id="mine")
            known["unusable"] = raised.value.request_id
        text = server.log()
    assert known["unusable"] == "mine"
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["outcome"] for line in lines] == outcomes
    for line in lines:
        assert line["event"] == "request"
        assert line["model"] == "track_finding"
        assert line["request_id"] == known[line["outcome"]]
        assert line["hits"] == (len(HITS) if line["outcome"] == "answered" else 4)
        assert 0 <= line["waited"] < 60
        assert 0 < line["worked"] < 60
        reason = "hit row 0: x is nan; every hit needs finite numbers"
        assert line.get("reason") == (reason if line["outcome"] == "unusable" else None)


def test_a_server_that_is_stopped_answers_what_it_has_taken(tiny_bundle):
    # A slow event: how many are pending is reported but twice a second.
    hits = straight_tracks(tracks=12000, noise=20000)
    expected = ReferencePipeline(tiny_bundle).find_tracks(hits).labels
    asked = 6

    def ask(url: str) -> str:
        with Client(url, tries=1) as client:
            try:
                np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
            except UnreachableError as error:
                return str(error)
            return "answered"

    with ThreadPoolExecutor(asked) as pool:
        with serve(tiny_bundle, **FREE_PORTS) as server:
            answers = [pool.submit(ask, server.grpc_url) for _ in range(asked)]
            wait_for(server, 'trackserve_pending_requests{bundle="tiny",model="track_finding"}', 3)
        outcomes = [answer.result() for answer in answers]
    assert outcomes.count("answered") >= 3
    for outcome in outcomes:
        assert outcome == "answered" or re.search("the server is stopping", outcome)
