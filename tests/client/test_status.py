"""What an operator sees of a server: what it runs, what became of requests, where the time goes."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from served import MAX_HITS, counted, wait_for
from tiny_bundle import straight_tracks
from trackserve.cli import main
from trackserve.client import Client
from trackserve.client.status import read_status
from trackserve.contract.tensors import STAGES
from trackserve.engines.registry import fastest
from trackserve.errors import InputError, UnreachableError

pytestmark = pytest.mark.service
HITS = straight_tracks(tracks=40)


def test_it_tells_what_the_server_runs_and_where_the_time_goes(server, url, tiny_bundle):
    stop = threading.Event()

    def load() -> None:
        with Client(url) as client:
            while not stop.is_set():
                client.find_tracks(HITS)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        (status,) = read_status(url, server.metrics_url, seconds=0.6)
    finally:
        stop.set()
        thread.join()
    assert status.description.digest == tiny_bundle.digest()
    assert status.description.max_hits == MAX_HITS
    stages = [stage.name for stage in STAGES]
    models = stages if status.shape == "ensemble" else ["pipeline"]
    assert status.instances == status.threads == dict.fromkeys(models, 1)
    assert status.engine == ("reference" if status.shape == "ensemble" else fastest())
    assert status.recent
    assert 1 < status.events_per_s < 2000
    assert all(0 < share <= 1 for share in status.busy.values())
    before = ["turn", "queue", "copy"] if status.shape == "ensemble" else ["turn"]
    assert list(status.spent) == [*before, *(f"compute {stage}" for stage in stages)]
    assert 0 < sum(status.spent.values()) < 1
    assert status.outcomes
    assert status.outcomes["answered"] >= 1


def test_refusals_are_counted_since_the_start(monolith, capsys):
    (before,) = (
        each.outcomes for each in read_status(monolith.grpc_url, monolith.metrics_url, seconds=0)
    )
    assert before is not None
    name = 'trackserve_requests_total{bundle="tiny",model="track_finding",outcome="unusable"}'
    known = counted(monolith).get(name, 0)
    with Client(monolith.grpc_url) as client, pytest.raises(InputError):
        client.find_tracks(np.full((4, 3), np.nan))
    wait_for(monolith, name, known + 1)
    assert main(["status", monolith.http_url, "--metrics", monolith.metrics_url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{monolith.http_url}\n  bundle    tiny (")
    unusable = re.search(r", (\d+) unusable, ", printed)
    assert unusable
    assert int(unusable[1]) > before.get("unusable", 0)
    assert re.search(r"pipeline 1 x 1 .*\n.*at most, 64 waiting", printed)


def test_without_metrics_it_tells_what_triton_counts(monolith, ensemble):
    with Client(monolith.grpc_url) as client:
        client.find_tracks(HITS)
    (status,) = read_status(monolith.grpc_url, seconds=0)
    assert status.outcomes is None
    assert not status.recent
    assert not status.spent
    assert not status.busy
    assert "give their address with --metrics" in str(status)


def test_no_server(capsys):
    with pytest.raises(UnreachableError):
        read_status("http://127.0.0.1:9")
    assert main(["status", "127.0.0.1:9"]) == 1
    assert "grpc://" not in capsys.readouterr().err
