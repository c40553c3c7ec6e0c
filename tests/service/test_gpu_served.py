"""The GPU engine in a real server, its kernels in Triton's interpreter; and what is said where it can't run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

pytest.importorskip("torch")
pytest.importorskip("triton")

from served import FREE_PORTS, MAX_HITS
from tiny_bundle import straight_tracks
from trackserve.cli import main
from trackserve.client import Client
from trackserve.client.status import read_status
from trackserve.engines.gpu import device
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.serving.repository import write_repository
from trackserve.serving.server import computed_here
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle

ON_CPU = Settings(engine="gpu", device="cpu", precision="float32", batch=4, max_hits=MAX_HITS)


@pytest.mark.service
def test_a_server_finds_the_tracks_of_the_reference_and_names_its_device(tiny_bundle: Bundle):
    hits = straight_tracks(tracks=20, noise=10)
    expected = open_pipeline(tiny_bundle, engine="reference").find_tracks(hits).labels
    many = straight_tracks(tracks=MAX_HITS, noise=0)
    with serve(tiny_bundle, ON_CPU, **FREE_PORTS) as server, Client(server.grpc_url) as client:
        np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
        with pytest.raises(InputError, match="takes at most"):
            client.find_tracks(many)
        np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
        (status,) = read_status(server.grpc_url, server.metrics_url, seconds=0.6)
        metrics = server.metrics()
    assert (status.engine, status.device) == ("gpu", "cpu")
    assert status.memory == {"cpu Triton's interpreter limit": device.INTERPRETER_BYTES}
    assert "memory    cpu Triton's interpreter limit 2.0 GiB" in str(status)
    (line,) = (
        line
        for line in metrics.splitlines()
        if line.startswith("trackserve_device_memory_bytes{") and 'model="track_finding"' in line
    )
    assert 'device="cpu",kind="limit"' in line
    assert float(line.rpartition(" ")[2]) == device.INTERPRETER_BYTES


def test_a_device_that_is_not_here_is_refused_before_a_server_starts(tiny_bundle: Bundle):
    with pytest.raises(InputError, match=r"no device 'cuda:3' here; it has cpu"):
        computed_here(tiny_bundle, replace(ON_CPU, device="cpu,cuda:3"))


def test_without_a_driver_the_command_line_says_so_and_auto_takes_another(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(device, "DRIVERS", {})
    assert main(["serve", "--engine", "gpu", "--http-port", "0"]) != 0
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "no GPU found: this machine has no driver for one" in said
    assert Settings().engine != "gpu"


@pytest.mark.parametrize(("devices", "first", "at_once"), [("cuda:1,cuda:0", 1, 2), ("auto", 0, 1)])
def test_one_process_takes_each_device_in_turn(
    tiny_bundle: Bundle, tmp_path: Path, devices: str, first: int, at_once: int
):
    settings = Settings(engine="gpu", device=devices)
    assert settings.at_once == at_once
    assert replace(settings, instances={"pipeline": 4}).at_once == 4
    repository = write_repository(tiny_bundle, tmp_path / "models", settings)
    config = pb.ModelConfig()
    text_format.Parse((repository / "track_finding/config.pbtxt").read_text(), config)
    (group,) = config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (1, group.KIND_GPU, [first])
    assert config.parameters["device"].string_value == devices
    assert config.parameters["at_once"].string_value == str(at_once)
