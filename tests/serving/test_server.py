from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from served import FREE_PORTS
from trackserve.client import Client
from trackserve.contract.tensors import bundle_folder
from trackserve.errors import MissingDependencyError, ServerError
from trackserve.serving import installation
from trackserve.serving.installation import Installation, assemble_backends, find_tritonserver
from trackserve.serving.process import children, choose_ports
from trackserve.serving.repository import write_repository
from trackserve.serving.server import Server, reasons
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings
from trackserve.serving.sockets import ask

pytestmark = pytest.mark.service


def processes_of(group: int) -> list[str]:
    """The command lines of the living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(command)
    return found


def shared_memory(server: Server) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{server._region}*"))


@pytest.fixture
def repository(tiny_bundle, tmp_path):
    return write_repository(tiny_bundle, tmp_path / "models")


def test_leaving_the_context_leaves_nothing_behind(repository, tmp_path):
    log = tmp_path / "log"
    log.write_text("of a server before\n")
    with Server(repository, log=log) as server:
        pid = server.pid
        assert "of a server before" not in server.log()
        assert len(processes_of(pid)) == 3  # tritonserver, the two served models, the pipeline
        assert shared_memory(server)
        assert "nv_inference_count" in ask(server.sockets["metrics"], "GET", "/metrics")[1]
    deadline = time.monotonic() + 10  # the last ones may still be dying
    while processes_of(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(pid) == []
    assert shared_memory(server) == []
    assert "Started GRPCInferenceService" in log.read_text()
    assert log.read_text().startswith("of a server before\n")


SERVE_UNTIL_STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from trackserve.serving.process import interrupted_by_sigterm
from trackserve.serving.server import Server
try:
    with interrupted_by_sigterm(), Server(sys.argv[1]) as server:
        print(server.pid, flush=True)
        server.wait()
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_program_that_started_it(repository, tmp_path, how):
    program = subprocess.Popen(
        [sys.executable, "-c", SERVE_UNTIL_STOPPED, repository],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pid = int(program.stdout.readline())
    watched = os.pidfd_open(pid)
    assert len(processes_of(pid)) == 3
    program.send_signal(how)
    output, _ = program.communicate(timeout=60)
    assert output == ("" if how == signal.SIGKILL else "stopped\n")
    _wait_for_end(watched)
    assert_no_process_of(pid)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_serve_that_is_stopped_as_a_service_has_not_failed(tiny_bundle, how, status):
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "trackserve.cli", "serve", "--bundle", tiny_bundle.path]
    program = subprocess.Popen(
        [*command, "--engine", "reference", *ports], stdout=subprocess.PIPE, text=True
    )
    assert any(line.startswith("ready") for line in program.stdout)
    program.send_signal(how)
    program.communicate(timeout=60)
    assert program.returncode == status


def assert_no_process_of(group: int) -> None:
    for _ in range(100):  # the models' processes notice within a moment that the server is gone
        if not (left := processes_of(group)):
            break
        threading.Event().wait(0.1)
    assert left == []


def _wait_for_end(pidfd: int) -> None:
    import select

    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def test_the_server_outlives_the_thread_that_started_it(repository):
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(Server(repository).__enter__).result()
    try:
        with Client(f"unix:{server.sockets['http']}") as client:
            assert len(client.find_tracks(np.ones((2, 3))).labels) == 2
    finally:
        server.__exit__(None, None, None)


def test_a_server_that_ends_by_itself_once_too_often_is_reported(repository):
    with Server(repository, restarts=0) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="ended by itself with status -9"):
            server.wait()
    with Server(repository, restarts=0) as server:
        os.kill(children(server.pid)[0], signal.SIGKILL)
        with pytest.raises(ServerError, match=r"ended by itself with model process \d+ gone"):
            server.wait()


def test_a_server_that_has_lost_a_process_is_started_anew(repository, tmp_path):
    log = tmp_path / "log"
    with Server(repository, log=log) as server:
        model = children(server.pid)[0]
        for choose in (lambda: model, lambda: server.pid):
            before = server.pid
            killed = choose()
            kill_and_wait(server, killed)
            assert_no_process_of(before)
            assert len(processes_of(server.pid)) == 3
            with Client(f"unix:{server.sockets['http']}") as client:
                assert client.find_tracks(np.ones((2, 3))).labels.tolist() == [-1, -1]
    notes = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [note["reason"] for note in notes if note["event"] == "restart"] == [
        f"model process {model} gone",
        "status -9",
    ]


def test_a_start_that_fails_is_one_of_the_restarts(repository, monkeypatch):
    monkeypatch.setattr("trackserve.serving.server.RESTART_PAUSE", 0.01)
    start, starts = Server._start, []

    def fails_twice(server: Server) -> None:
        starts.append(server)
        if 2 <= len(starts) <= 3:
            message = "no memory"
            raise ServerError(message)
        start(server)

    monkeypatch.setattr(Server, "_start", fails_twice)
    with Server(repository, restarts=3) as server:
        kill_and_wait(server, server.pid)
        assert len(starts) == 4
        with Client(f"unix:{server.sockets['http']}") as client:
            assert client.find_tracks(np.ones((2, 3))).labels.tolist() == [-1, -1]
    starts.clear()
    with Server(repository, restarts=1) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="status -9; the restart failed: no memory"):
            server.wait()


def test_deaths_alone_never_end_it_for_good(repository, monkeypatch):
    monkeypatch.setattr("trackserve.serving.server.LATE_RESTART_PAUSE", 0.01)
    with Server(repository, restarts=3) as server:
        for _ in range(4):
            kill_and_wait(server, server.pid)


def kill_and_wait(server: Server, process: int) -> None:
    """Kill a process of the server and wait until the next server is watched.

    One that is killed before that counts as a start that failed.
    """
    before = server._processes
    os.kill(process, signal.SIGKILL)
    for _ in range(1200):
        if server._processes is not before:
            return
        threading.Event().wait(0.05)
    raise AssertionError(server.log())


def test_a_server_can_be_stopped_while_it_is_started_anew(repository):
    with Server(repository) as server:
        os.kill(server.pid, signal.SIGKILL)
    assert_no_process_of(server.pid)


def test_a_bundle_that_cannot_be_loaded_is_the_reason(repository):
    server = Server(repository)
    (repository / bundle_folder() / "gnn.onnx").write_bytes(b"garbage")
    with (
        pytest.raises(ServerError, match=r"did not start: .*gnn\.onnx is not a valid ONNX network"),
        server,
    ):
        pass
    assert shared_memory(server) == []


def test_a_repository_that_is_not_there_is_the_reason(tmp_path):
    with (
        pytest.raises(ServerError, match=r"did not start: .*nowhere"),
        Server(tmp_path / "nowhere"),
    ):
        pass


def test_a_port_in_use_is_told_at_once(tiny_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError) as raised,
            serve(tiny_bundle, **{**FREE_PORTS, "grpc_port": port}),
        ):
            pass
    assert str(raised.value) == (
        f"the grpc port {port} on 127.0.0.1 can't be used: Address already in use; "
        "choose another one, or 0 for a free one"
    )


@pytest.mark.parametrize(("address", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_cannot_be_is_told(address, port):
    with pytest.raises(ServerError, match=f"the http port {port} on {address} can't be used"):
        choose_ports(address, {"http": port})


def test_one_port_for_two_protocols_is_told():
    free = choose_ports("127.0.0.1", {"http": 0})["http"]
    with pytest.raises(ServerError, match=f"the grpc port {free} on 127.0.0.1 can't be used"):
        choose_ports("127.0.0.1", {"http": free, "grpc": free})


def test_free_ports_differ():
    chosen = choose_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0})
    assert len(set(chosen.values())) == 3
    assert 0 not in chosen.values()


def test_a_tritonserver_on_the_path_comes_first(monkeypatch, tmp_path):
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert find_tritonserver().pip is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tritonserver() == Installation(binary, None)


def test_the_tritonserver_on_the_path_serves(monkeypatch, repository, tmp_path):
    """As in a container, where the server knows its own backends."""
    pip = find_tritonserver()
    backends = assemble_backends(pip.pip, tmp_path)
    binary = tmp_path / "tritonserver"
    binary.write_text(f'#!/bin/sh\nexec {pip.binary} --backend-directory={backends} "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Server(repository) as server, Client(f"unix:{server.sockets['http']}") as client:
        assert client.find_tracks(np.ones((2, 3))).labels.tolist() == [-1, -1]


def test_the_pip_installed_server_has_no_onnxruntime_backend(tiny_bundle):
    settings = Settings(shape="ensemble", networks="onnxruntime")
    with (
        pytest.raises(ServerError) as raised,
        serve(tiny_bundle, settings, **FREE_PORTS),
    ):
        pass
    # All three are reported, so the server understood their configurations.
    for name in ("embedding", "filter", "gnn"):
        assert re.search(
            rf"{name}: unable to find backend library for backend 'onnxruntime'", str(raised.value)
        )


def test_numpy_2_is_refused_by_the_pip_installed_server(monkeypatch):
    monkeypatch.setattr(installation.np, "__version__", "2.1.0")
    with pytest.raises(MissingDependencyError, match=r"needs numpy below 2, found 2\.1\.0"):
        find_tritonserver()


@pytest.mark.parametrize("numpy", ["1.26.4", "2.1.0"])
def test_a_python_without_numpy_1_is_named_as_the_reason(monkeypatch, numpy):
    monkeypatch.setattr(installation.sys, "version_info", (3, 13, 1))
    monkeypatch.setattr(installation.np, "__version__", numpy)
    if numpy < "2":
        monkeypatch.setattr(installation.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        MissingDependencyError, match=r"3\.12 at most, .* this is 3\.13: serve from"
    ):
        find_tritonserver()


def test_reasons_come_from_the_log():
    log = """
I1123 19:56:34.201523 4689 model_lifecycle.cc:777] "failed to load 'toy'"
E1123 19:56:34.201504 4689 model_lifecycle.cc:642] "failed to load 'toy' version 1: Internal: ValueError: no 'x'\\n\\nAt:\\n  model.py(8): initialize\\n"
error: creating server: Internal - failed to load all models
"""
    assert reasons(log) == "toy: ValueError: no 'x'"
    assert (
        reasons("error: creating server: Internal - no GPU\n")
        == "creating server: Internal - no GPU"
    )
    assert reasons("") == "its log gives no reason"
