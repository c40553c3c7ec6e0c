"""Loads on real servers: every request is counted once, every answer is compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.cli import main
from trackserve.client import Client
from trackserve.client.statistics import Statistics
from trackserve.contract.tensors import STAGES
from trackserve.errors import InputError, ServerError
from trackserve.load.load import Load, Records, drive, first_answers, mix
from trackserve.load.plots import write_plots
from trackserve.load.report import measure, summarise, table
from trackserve.load.worker import RECORD, RequestStatus
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

KINDS = [
    ("small", [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(4)]),
    ("large", [straight_tracks(tracks=60, noise=9, seed=9)]),
]
SHORT = {"seconds": 0.7, "warm_up": 0.1, "processes": 1}


@pytest.fixture(scope="module")
def shared(tiny_bundle):
    settings = Settings(shared_memory=True, max_queue=2)
    with serve(tiny_bundle, settings, **FREE_PORTS) as server:
        yield server


@pytest.fixture(scope="module")
def events(shared):
    with Client(shared.grpc_url) as client:
        return first_answers(client, mix(client, KINDS, [3, 1]))


@pytest.mark.service
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("how", [{"concurrency": 2, "processes": 2}, {"rate": 60.0}])
def test_every_answer_is_right_over_every_protocol(shared, events, protocol, shared_memory, how):
    url = shared.grpc_url if protocol == "grpc" else shared.http_url
    load = Load(**{**SHORT, **how}, shared_memory=shared_memory)
    report = measure(url, events, load, metrics_url=shared.metrics_url)
    counts = report.counts
    assert counts["answered"] > 5
    assert counts["answered"] + counts["refused"] == counts["sent"]
    assert report.latency.count == sum(kind.count for kind in report.kinds.values())
    assert 0 < report.latency.p50 <= report.latency.p95 <= report.latency.longest
    stages = {f"compute {stage.name}" for stage in STAGES}
    assert set(report.spent) == stages | {"client", "network", "turn", "server, else"}
    assert all(report.spent[part] > 0 for part in ("client", "network", "turn", *stages))


@pytest.mark.service
def test_a_wrong_answer_is_counted(shared, events):
    wrong = events.expecting([np.full_like(labels, 7) for labels in events.expected])
    counts = measure(shared.grpc_url, wrong, Load(concurrency=1, **SHORT)).counts
    assert counts["wrong"] == counts["sent"] > 0
    assert counts["answered"] == 0
    both = events.expecting(
        wrong.expected, events.expected
    )  # as after a roll to the bundle that answers
    counts = measure(shared.grpc_url, both, Load(concurrency=1, **SHORT)).counts
    assert counts["answered"] == counts["sent"] > 0


@pytest.mark.service
def test_a_full_queue_refuses(shared, events):
    report = measure(shared.grpc_url, events, Load(concurrency=64, **SHORT))
    assert report.counts["refused"] > 0
    assert report.refusal.count == report.counts["refused"]
    assert report.counts["failed"] == report.counts["lost"] == report.counts["wrong"] == 0


@pytest.mark.service
def test_shared_memory_is_closed_unless_asked_for(monolith, events):
    with pytest.raises(ServerError, match="--shared-memory"):
        drive(monolith.grpc_url, events, Load(concurrency=1, shared_memory=True, **SHORT))


def test_a_server_that_is_not_there_loses_every_request(events):
    records = drive("localhost:9", events, Load(rate=50, **SHORT))
    assert len(records.rows) > 0
    assert set(records.rows["outcome"]) == {RequestStatus.LOST}


@pytest.mark.service
def test_the_command_writes_its_numbers(shared, tmp_path, capsys):
    folder = tmp_path / "events"
    folder.mkdir()
    hits = straight_tracks(tracks=8, noise=2, seed=1)
    write_hits(folder / "event000000001-hits.csv", hits)
    arguments = ["bench", shared.grpc_url, str(folder), "--seconds", "0.5", "--check"]
    out, plots = tmp_path / "o.json", tmp_path / "plots"
    arguments += ["--concurrency", "1", "2", "--json", str(out), "--plots", str(plots)]
    assert main(arguments) == 0
    assert "2 in flight" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [each["load"]["concurrency"] for each in found] == [1, 2]
    assert found[0]["counts"]["answered"] == found[0]["counts"]["sent"] > 0
    assert {path.name for path in plots.iterdir()} == {"throughput.png", "latency.png", "time.png"}


def write_hits(path, hits):
    rows = [
        f"{n},{x},{y},{z}" for n, x, y, z in zip(hits.hit_id, hits.x, hits.y, hits.z, strict=True)
    ]
    path.write_text("\n".join(["hit_id,x,y,z", *rows]) + "\n")


def test_latency_counts_from_the_arrival_and_throughput_from_the_answers_in_time(events, tmp_path):
    rows = np.zeros(4, RECORD)
    rows["arrival"] = [0.5, 1.0, 2.0, 2.9]
    rows["sent"] = [0.5, 1.5, 2.0, 2.9]
    rows["received"] = [1.1, 1.75, 2.1, 3.5]
    rows["done"] = [1.2, 2.0, 2.2, 3.6]
    rows["outcome"] = [
        RequestStatus.ANSWERED,
        RequestStatus.ANSWERED,
        RequestStatus.REFUSED,
        RequestStatus.ANSWERED,
    ]
    load = Load(rate=2, seconds=2, warm_up=1)
    one = {("gnn", "success"): 2, ("hits_to_tracks", "success"): 2}
    statistics = Statistics(one, {("hits_to_tracks", "success"): 0.4})
    report = summarise("localhost:1", events, load, Records(rows, 1, 3), statistics)
    assert report.counts["sent"] == 3
    assert report.counts["answered"] == 2
    assert report.throughput == 1.0  # the answers at 1.2 and 2.0 s, in 2 s
    assert report.latency.mean == pytest.approx((1.0 + 0.7) / 2)
    assert report.refusal.p50 == pytest.approx(0.2)
    assert report.spent["client"] == pytest.approx((0.5 + 0.25 + 0.1) / 2)
    assert report.spent["network, turn"] == pytest.approx((0.25 + 0.6) / 2 - 0.2)
    assert sum(report.spent.values()) == pytest.approx(report.latency.mean)
    assert "2/s" in table([report])
    assert len(write_plots([report], tmp_path)) == 3


def test_a_load_is_closed_or_open():
    for wrong in ({}, {"concurrency": 1, "rate": 1.0}, {"concurrency": 1, "seconds": 0}):
        with pytest.raises(InputError):
            Load(**wrong)
