"""One address in front of servers that others start: by their list, what they ask for, and as they come and go."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tiny_bundle import straight_tracks
from trackserve.cli import main
from trackserve.client import Client
from trackserve.client.statistics import read_page
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError, RefusedError, ServerError
from trackserve.serving.alive import aliveness
from trackserve.serving.fleet.addresses import addresses_from
from trackserve.serving.fleet.remote import RemoteFleet
from trackserve.serving.guard.pieces import Address
from trackserve.serving.process import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.serving.service import Service

EVENT = straight_tracks(tracks=12, noise=5)


def wait_until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def place(service: Service) -> str:
    return f"127.0.0.1:{service.ports['grpc']}"


@pytest.fixture(scope="module")
def listed(tmp_path_factory, monolith) -> Path:
    """A folder with a file for each server."""
    folder: Path = tmp_path_factory.mktemp("servers")
    (folder / "n1").write_text(f"{place(monolith)}  # the first node\n")
    return folder


@pytest.fixture(scope="module")
def front(listed, tiny_bundle, tmp_path_factory) -> Iterator[RemoteFleet]:
    with RemoteFleet(
        str(listed), tiny_bundle, folder=tmp_path_factory.mktemp("front"), port=0
    ) as running:
        wait_until(running.well)
        wait_until(lambda: has_room(running))
        yield running


def has_room(front: RemoteFleet) -> bool:
    """Whether Envoy lets as many requests wait as the servers that it knows have room for."""
    return f"::{front.per_server}\n" in front.guard.admin("/clusters")


def find(front: RemoteFleet, bundle: Bundle) -> None:
    right = ReferencePipeline(bundle).find_tracks(EVENT).labels
    for url in front.urls.values():
        with Client(url, tries=1) as client:
            np.testing.assert_array_equal(client.find_tracks(EVENT).labels, right)


@pytest.mark.service
def test_servers_come_and_go_with_the_list(  # noqa: PLR0917 - each a fixture
    front, listed, monolith, ensemble, tiny_bundle, capsys
):
    find(front, tiny_bundle)
    (listed / "n2").write_text(f"{place(ensemble)}\n127.0.0.1:9\n")
    wait_until(lambda: len(front.well()) == 2)
    wait_until(lambda: front.room == 2 * front.per_server)
    find(front, tiny_bundle)
    assert main(["status", front.address]) == 0
    output = capsys.readouterr().out
    assert f"front of 3 servers at {front.address}: 2 are well, room for {front.room}" in output
    assert "127.0.0.1:9  down" in output
    page = read_page(f"{front.urls['http']}/metrics")
    assert 'trackserve_front_servers{state="down"} 1\n' in page
    assert f"trackserve_front_room {front.room}\n" in page
    assert "trackserve_guard_requests_total{" in page
    (listed / "n2").unlink()
    wait_until(lambda: front.room == front.per_server)
    assert list(front.known) == [Address("127.0.0.1", monolith.ports["grpc"])]
    find(front, tiny_bundle)


@pytest.mark.service
def test_a_list_that_cannot_be_read_leaves_the_servers(front, listed, tiny_bundle):
    (listed / "n3").write_text("not an address\n")
    wait_until(lambda: front.problem)
    assert "'not an address' is not the address of a server" in front.status()
    find(front, tiny_bundle)
    (listed / "n3").unlink()
    wait_until(lambda: not front.problem)


@pytest.mark.service
def test_a_restarted_envoy_has_the_room_again(front, tiny_bundle):
    os.kill(front.guard.pid, signal.SIGKILL)
    wait_until(lambda: front.guard.restarted)
    wait_until(lambda: has_room(front))
    wait_until(front.well)
    find(front, tiny_bundle)


@pytest.mark.service
def test_more_than_all_servers_take_is_refused_at_once(front, tiny_bundle):
    front.guard.make_room(0)
    try:
        for url in front.urls.values():
            with (
                Client(url, tries=1) as client,
                pytest.raises(RefusedError, match="the queue is full; retry after 1 s"),
            ):
                client.find_tracks(EVENT)
    finally:
        front.guard.make_room(front.room)
    find(front, tiny_bundle)


@pytest.mark.service
def test_a_front_without_servers_says_so_and_lives(tiny_bundle, tmp_path):
    listed = tmp_path / "none.txt"
    listed.write_text("# nobody yet\n")
    with RemoteFleet(str(listed), tiny_bundle, folder=tmp_path / "f", port=0) as front:
        assert read_page(f"{front.urls['http']}/alive") == "alive: 0 of 0 servers are well\n"
        with (
            Client(front.address, tries=1) as client,
            pytest.raises(ServerError, match=r"no server answers|queue is full"),
        ):
            client.find_tracks(EVENT)


@pytest.mark.service
def test_a_stuck_process_of_a_model_is_noticed(monolith, tiny_bundle):
    columns = len(tiny_bundle.features.wire_columns)
    assert read_page(f"{monolith.http_url}/alive").startswith("alive: an event without hits")
    look = aliveness(monolith.server, columns, seconds=0.5)
    stuck = children(monolith.pid)
    for pid in stuck:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Triton goes on to call the server ready.
        assert read_page(f"{monolith.http_url}/v2/health/live") == ""
        with pytest.raises(ServerError, match=r"wasn't answered within 0\.5 s"):
            look()
    finally:
        for pid in stuck:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: look().startswith("alive"))


def test_lists_are_files_folders_or_names(tmp_path):
    (tmp_path / "a").write_text("127.0.0.1:8001\n\n[::1]:8002 # six\n127.0.0.1:8001\n")
    (tmp_path / ".half").write_text("127.0.0")
    both = [Address("127.0.0.1", 8001), Address("::1", 8002)]
    assert addresses_from(str(tmp_path))() == addresses_from(str(tmp_path / "a"))() == both
    assert [str(each) for each in both] == ["127.0.0.1:8001", "[::1]:8002"]
    assert Address("127.0.0.1", 8001) in addresses_from("localhost:8001")()
    with pytest.raises(InputError, match="neither a file or folder of addresses"):
        addresses_from(str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"not known|resolution|No address"):
        addresses_from("nobody.invalid:8001")()
