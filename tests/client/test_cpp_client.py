"""The C++ client: built from source, and asked beside the Python one against a real tritonserver."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.client import Client
from trackserve.serving.service import serve

SOURCE = Path(__file__).parents[2] / "clients" / "cpp"
TOOLS = ("cmake", "ninja", "pkg-config", "protoc", "grpc_cpp_plugin")
REQUESTS = 300


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Where the client was built; CI installs all that it needs and sets REQUIRE_CPP_CLIENT."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and not os.environ.get("REQUIRE_CPP_CLIENT"):
        pytest.skip(f"the C++ client needs {', '.join(missing)} (clients/cpp/README.md)")
    folder = tmp_path_factory.mktemp("cpp-client")
    # Nothing here needs optimised code, which takes twice as long to compile.
    options = ["-DTRACKSERVE_CLIENT_TESTS=ON", "-DCMAKE_BUILD_TYPE=None"]
    _run("cmake", "-S", SOURCE, "-B", folder, "-G", "Ninja", *options)
    _run("cmake", "--build", folder)
    return folder


def _run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def _write_csv(path, hits, order=("hit_id", "x", "y", "z")):
    table = np.column_stack([getattr(hits, name) for name in order])
    rows = [",".join(f"{value:.9g}" for value in row) for row in table]
    path.write_text("\n".join([",".join(order), *rows]) + "\n")
    return path


def _find_tracks(build, *arguments):
    command = [str(part) for part in (build / "find_tracks", *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_its_own_tests_pass(build):
    _run("ctest", "--test-dir", build, "--output-on-failure")


def test_the_protocol_is_the_public_one(build):
    described = build / "kserve.bin"
    proto = SOURCE / "proto"
    _run("protoc", f"--proto_path={proto}", f"--descriptor_set_out={described}", "kserve.proto")
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file
    assert file.package == "inference"
    public = {}
    for module in (service_pb2, model_config_pb2):
        whole = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(whole)
        public |= {message.name: message for message in whole.message_type}
        services = {service.name: service for service in whole.service}
        if services:
            rpcs = {rpc.name: rpc for rpc in services["GRPCInferenceService"].method}
    for message in file.message_type:
        _check_message(message, public[message.name])
    for rpc in file.service[0].method:
        assert (rpc.input_type, rpc.output_type) == (
            rpcs[rpc.name].input_type,
            rpcs[rpc.name].output_type,
        )


def _check_message(ours, public):
    theirs = {field.name: field for field in public.field}
    for field in ours.field:
        other = theirs[field.name]
        for part in ("number", "type", "label", "type_name"):
            assert getattr(field, part) == getattr(other, part), f"{ours.name}.{field.name}: {part}"
    nested = {message.name: message for message in public.nested_type}
    for message in ours.nested_type:
        _check_message(message, nested[message.name])


@pytest.mark.service
def test_labels_equal_the_python_clients(build, server, tmp_path):
    address = server.grpc_url.removeprefix("grpc://")
    files, expected = [], []
    with Client(server.grpc_url) as client:
        for seed in range(3):
            hits = straight_tracks(tracks=40, noise=30, seed=seed)
            labels = client.find_tracks(hits).labels
            assert len(set(labels.tolist())) > 2
            expected += [f"{i},{label}" for i, label in zip(hits.hit_id, labels, strict=True)]
            order = [
                ("hit_id", "x", "y", "z"),
                ("z", "hit_id", "y", "x"),
                ("x", "y", "z", "hit_id"),
            ]
            files.append(_write_csv(tmp_path / f"{seed}.csv", hits, order[seed]))
    done = _find_tracks(build, "--servers", address, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hit_id,track_id", *expected]


@pytest.mark.service
def test_the_request_id_names_a_refused_event(build, monolith, tmp_path):
    file = tmp_path / "event.csv"
    file.write_text("x,y,z\n1,2,3\n4,nan,6\n")
    done = _find_tracks(build, "--servers", monolith.grpc_url, "--request-id", "run7-event12", file)
    assert done.returncode == 2
    with Client(monolith.grpc_url) as client, pytest.raises(ValueError) as raised:
        client.find_tracks(np.array([[1, 2, 3], [4, np.nan, 6]]))
    assert done.stderr == f"find_tracks: {raised.value} (request run7-event12)\n"


@pytest.mark.service
def test_a_server_that_is_not_there_is_left_for_one_that_is(build, monolith, tmp_path):
    file = _write_csv(tmp_path / "event.csv", straight_tracks(tracks=5))
    done = _find_tracks(build, "--servers", f"127.0.0.1:9,{monolith.grpc_url}", file)
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_not_there_is_named(build, tmp_path):
    file = _write_csv(tmp_path / "event.csv", straight_tracks(tracks=5))
    done = _find_tracks(build, "--servers", "127.0.0.1:9", "--attempts", 2, file)
    assert done.returncode == 1
    assert done.stderr.startswith("find_tracks: grpc://127.0.0.1:9 can't be reached: ")
    assert "gave up after 2 attempts in " in done.stderr


@pytest.mark.service
def test_a_killed_server_loses_no_event(build, tiny_bundle, tmp_path):
    events = [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(10)]
    files = []
    for i, hits in enumerate(events):
        files.append(tmp_path / f"{i}.f32")
        np.stack([hits.x, hits.y, hits.z], axis=1).tofile(files[-1])
    with serve(tiny_bundle, **FREE_PORTS) as server:
        with Client(server.grpc_url) as client:
            expected = [client.find_tracks(hits).labels.tolist() for hits in events]
        command = [build / "ask_many", server.grpc_url, REQUESTS, 4, *files]
        asking = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with asking:
            answered = [int(asking.stdout.readline()) for _ in range(REQUESTS // 2)]
            os.kill(server.pid, signal.SIGKILL)
            rest, errors = asking.communicate(timeout=120)
        assert asking.returncode == 0, errors
        assert len(server.restarted) == 1
    lines = rest.splitlines()
    answered += [int(line) for line in lines if not line.startswith("labels")]
    assert sorted(answered) == list(range(REQUESTS))
    labels = [line.split()[1:] for line in lines if line.startswith("labels")]
    assert len(labels) == REQUESTS
    for number, *found in labels:
        assert list(map(int, found)) == expected[int(number) % len(events)]
    spent = json.loads(errors.splitlines()[-1])
    assert 0 < spent["processor"] < spent["wall"] * os.cpu_count()
