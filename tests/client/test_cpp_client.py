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
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.contract.compact import encode_hits
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

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
    # Nothing here needs optimised code, which takes twice as long to compile; as long again takes gRPC's
    # header, which is read once for all files of a library.
    options = ["-DTRACKSERVE_CLIENT_TESTS=ON", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_UNITY_BUILD=ON"]
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


@pytest.mark.parametrize(("columns", "step"), [(3, 0.01), (3, 0.001), (5, 0.02)])
def test_compact_hits_are_the_bytes_that_python_writes(build, tmp_path, columns, step):
    random = np.random.default_rng(columns)
    table = random.normal(scale=300, size=(1001, columns)).astype(np.float32)
    table[:500] = np.sort(table[:500], axis=0)  # near their neighbours, and far from them
    table[500:600, :3] = 12.345
    expected = encode_hits(table, step)
    assert expected is not None
    table.tofile(tmp_path / "hits.f32")
    command = [build / "test_client", tmp_path / "hits.f32", str(columns), str(step)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == expected.tobytes()


@pytest.mark.service
def test_compact_requests_are_answered_as_pythons_are(build, server, tmp_path):
    hits = straight_tracks(tracks=40, noise=30, seed=4)
    file = _write_csv(tmp_path / "event.csv", hits)
    step = 40.0  # so coarse that it shows in the labels
    with Client(server.grpc_url) as plain, Client(server.grpc_url, compact=step) as client:
        labels = client.find_tracks(hits).labels
        assert (labels != plain.find_tracks(hits).labels).any()
    done = _find_tracks(build, "--servers", server.grpc_url, "--compact", step, file)
    assert done.returncode == 0, done.stderr
    assert [int(line.split(",")[1]) for line in done.stdout.splitlines()[1:]] == labels.tolist()


@pytest.mark.service
def test_bad_hits_sent_compact_are_refused_as_they_are(build, monolith, tmp_path):
    file = tmp_path / "event.csv"
    file.write_text("x,y,z\n1,2,3\n4,1e9,6\n7,nan,9\n")
    done = _find_tracks(build, "--servers", monolith.grpc_url, "--compact", 0.01, file)
    assert done.returncode == 2
    assert "nan" in done.stderr


@pytest.mark.service
def test_parameters_and_quality_are_those_of_the_python_client(build, tmp_path):
    hits = straight_tracks(tracks=40, noise=30, seed=15)
    file, fitted = _write_csv(tmp_path / "event.csv", hits), tmp_path / "tracks.csv"
    with serve(read_bundle(), Settings(max_hits=2000), **FREE_PORTS) as server:
        with Client(server.grpc_url) as client:
            every = client.find_tracks(hits, parameters=True, min_quality=0.0)
            quality = np.sort(every.parameters.quality)
            gap = np.argmax(np.diff(quality))
            least = round(float(quality[gap : gap + 2].mean()), 6)
        for compact in (None, 0.001):
            with Client(server.grpc_url, compact=compact) as client:
                expected = client.find_tracks(hits, parameters=True, min_quality=least)
            assert 0 < len(expected) < len(every)
            wanted = ["--min-quality", least, "--parameters", fitted]
            wanted += [] if compact is None else ["--compact", compact]
            done = _find_tracks(build, "--servers", server.grpc_url, *wanted, file)
            assert done.returncode == 0, done.stderr
            found = np.genfromtxt(fitted, delimiter=",", names=True, usecols=range(1, 11))
            assert len(found) == len(expected)
            # A digit more or less in the file moves a hit by the step of compact hits.
            close = {"rtol": 1e-5} if compact is None else {"rtol": 0.3, "atol": 0.05}
            for name in ("pt", "eta", "phi", "d0", "z0", "charge", "chi2", "hits", "quality"):
                column = getattr(expected.parameters, name)
                np.testing.assert_allclose(found[name], column, **close)


@pytest.mark.service
def test_what_the_bundle_cannot_give_is_refused_in_one_sentence(build, monolith, tmp_path):
    file = _write_csv(tmp_path / "event.csv", straight_tracks(tracks=5))
    for wanted, sentence in (
        (["--min-quality", 0.5], "the bundle tiny has no [quality]"),
        (["--parameters", tmp_path / "tracks.csv"], "the bundle tiny has no [fit]"),
        (["--min-quality", 1], "min_quality is 1.000000; expected a number from 0 up, below 1"),
    ):
        done = _find_tracks(build, "--servers", monolith.grpc_url, *wanted, file)
        assert done.returncode == 2
        assert done.stderr.startswith(f"find_tracks: {sentence}"), done.stderr


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
            # Not communicate(): it forgets what readline() has read ahead.
            rest, errors = asking.stdout.read(), asking.stderr.read()
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
