"""A repository that carries its packages: a server whose Python has no trackserve runs the models from there."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from served import MAX_HITS
from tiny_bundle import straight_tracks
from trackserve.client import Client
from trackserve.contract.tensors import STAGES
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError, MissingDependencyError, ServerError
from trackserve.serving import environment, server
from trackserve.serving.environment import (
    FOR_ENGINES,
    FOR_GPU,
    FOR_TRACES,
    check_torch,
    write_environment,
)
from trackserve.serving.repository import write_repository
from trackserve.serving.server import Server
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collector import Receiver
    from trackserve.bundle import Bundle

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def numpy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run servers on a Python that has numpy and nothing else, as NVIDIA's container does."""
    home = tmp_path / "python"
    packages = home / f"lib/python{PYTHON}/site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    real = Path(sys.executable).resolve()
    (home / "bin/python3").symlink_to(real)
    (home / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    for name in ("numpy", "numpy.libs"):
        (packages / name).symlink_to(Path(np.__file__).parents[1] / name)
    within = server.server_environment()
    within["PATH"] = f"{home / 'bin'}:{os.defpath}"
    within.pop("PYTHONPATH", None)
    monkeypatch.setattr(server, "server_environment", lambda: within)
    for package, status in (("numpy", 0), ("trackserve", 1), ("onnx", 1)):
        run = [home / "bin/python3", "-I", "-c", f"import {package}"]
        assert subprocess.run(run, check=False, capture_output=True).returncode == status
    return home


@pytest.mark.service
def test_a_server_without_trackserve_runs_the_models_from_their_repository(
    tiny_bundle: Bundle,
    tmp_path: Path,
    numpy_alone: Path,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
):
    # The client would trace, too, where another test has imported this, and send a header of its own.
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    settings = Settings(engine="reference", max_hits=MAX_HITS, trace=receiver.url)
    models = write_repository(tiny_bundle, tmp_path / "models", settings, environment=True)
    moved = models.rename(tmp_path / "elsewhere")
    entry = moved / "track_finding/1/model.py"
    entry.write_text(
        entry.read_text()
        + "import trackserve, scipy, onnxruntime\n"
        + "for each in trackserve, scipy, onnxruntime: print('from', each.__file__, flush=True)\n"
    )
    hits = straight_tracks(tracks=20, noise=10)
    expected = open_pipeline(tiny_bundle, engine="reference").find_tracks(hits).labels
    trace_id = 0xE01
    with (
        Server(moved, traced=True) as running,
        Client(f"unix:{running.sockets['http']}") as client,
    ):
        for connection in client._connections:
            connection._client._headers["traceparent"] = f"00-{trace_id:032x}-{9:016x}-01"
        np.testing.assert_array_equal(client.find_tracks(hits).labels, expected)
        receiver.trace(trace_id, 2 + len(STAGES))  # of the request, its wait, and each stage
        origins = [line for line in running.log().splitlines() if line.startswith("from ")]
    packages = moved / "track_finding/environment/site-packages"
    assert not (packages / "numpy").exists()  # the backend has imported its own
    library = next(packages.glob("onnxruntime/capi/*.so"))
    assert os.access(library, os.X_OK)  # as programs are that a package brings, such as ptxas
    assert origins == [
        f"from {packages / each}/__init__.py" for each in ("trackserve", "scipy", "onnxruntime")
    ]

    # A tritonserver with another Python than the packages': one sentence instead of broken imports.
    for entry in moved.glob("*/1/model.py"):
        entry.write_text(entry.read_text().replace(str(tuple(sys.version_info[:2])), "(3, 99)"))
    refusal = rf"the packages in this repository are of Python .*; this tritonserver runs models on Python {PYTHON}"
    with pytest.raises(ServerError, match=refusal), Server(moved):
        pass


def test_without_trackserve_such_a_server_fails(
    tiny_bundle: Bundle, tmp_path: Path, numpy_alone: Path
):
    """So it is the environment that the other test's models came from."""
    models = write_repository(tiny_bundle, tmp_path / "models", Settings(engine="reference"))
    with pytest.raises(ServerError, match="No module named 'trackserve'"), Server(models):
        pass


def test_what_is_copied_are_the_extras():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    for part, expected in (("engines", FOR_ENGINES), ("gpu", FOR_GPU), ("trace", FOR_TRACES)):
        listed = project["project"]["optional-dependencies"][part]
        names = [each.partition(">=")[0] for each in listed]
        assert [name for name in names if name != "numpy"] == list(expected)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(environment, "FOR_ENGINES", ("no-such-package",))
    with pytest.raises(
        MissingDependencyError, match=r"no-such-package .* pip install 'trackserve\[engines\]'"
    ):
        write_environment(tmp_path / "environment", "native")


@pytest.mark.parametrize(("version", "refused"), [("2.13.0+cpu", True), ("2.13.0+cu130", False)])
def test_a_torch_for_processors_is_not_copied_for_a_gpu(monkeypatch, version: str, refused: bool):
    monkeypatch.setattr(metadata, "version", {"torch": version}.__getitem__)
    check_torch("cpu")
    if refused:
        with pytest.raises(InputError, match=r"torch 2.13.0\+cpu.* is a build for processors"):
            check_torch("cuda:0")
    else:
        check_torch("cuda:0")
