"""A new engine is one file and an entry point: every choice of an engine in the package knows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tiny_bundle import straight_tracks
from trackserve.cli import build_parser, main
from trackserve.engines import registry
from trackserve.engines.base import Engine
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError, MissingDependencyError
from trackserve.load.tune import Candidate, Goal, Tuning
from trackserve.serving.repository import write_repository
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from trackserve.bundle import Bundle


class ToyEngine(Engine):
    """The reference on a device of its own, in a precision that only it and some others have."""

    name = "toy"
    summary = "made for a test"
    all_precisions = ("float32", "bfloat16")
    device_kinds = ("toybox",)
    reason: str | None = None

    def unavailable(self) -> str | None:
        return self.reason

    def details(self) -> str:
        return "made of wood"

    def devices(self) -> tuple[str, ...]:
        return ("toybox:0", "toybox:1")

    def open(
        self, bundle: Bundle, *, device: str, precision: str, threads: int
    ) -> ReferencePipeline:
        pipeline = ReferencePipeline(bundle, threads=threads)
        pipeline.device, pipeline.precision = device, precision
        return pipeline


ENGINE = ToyEngine()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The engine as another package brings it: by an entry point that names its module."""
    monkeypatch.setattr(ENGINE, "reason", None)
    package = tmp_path / "site/toy-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntoy = {__name__}\n")
    monkeypatch.syspath_prepend(package.parent)
    registry.modules.cache_clear()
    # This module is imported once: what the registry finds is the engine above.
    yield ENGINE
    monkeypatch.undo()
    registry.modules.cache_clear()


def test_the_registry_opens_it_on_its_devices_in_its_precisions(toy, tiny_bundle):
    assert registry.names()[-1] == "toy"
    assert registry.available()[-1] == "toy"
    assert registry.engine("toy") is toy
    pipeline = registry.open_pipeline(tiny_bundle, engine="toy", precision="bfloat16")
    assert (pipeline.device, pipeline.precision) == ("toybox:0", "bfloat16")
    second = registry.open_pipeline(tiny_bundle, engine="toy", device="toybox:1")
    assert (second.device, second.precision) == ("toybox:1", "float32")
    with pytest.raises(InputError, match="no device 'cpu' here; it has toybox:0, toybox:1"):
        registry.open_pipeline(tiny_bundle, engine="toy", device="cpu")
    with pytest.raises(InputError, match=r"computes in float32, bfloat16, not int8; choose the"):
        registry.open_pipeline(tiny_bundle, engine="toy", precision="int8")


def test_where_it_cannot_run_it_says_why_and_the_others_serve(
    toy, tiny_bundle, capsys, monkeypatch
):
    monkeypatch.setattr(toy, "reason", "there is no toybox here")
    assert "toy" in registry.names()
    assert "toy" not in registry.available()
    with pytest.raises(MissingDependencyError, match="there is no toybox here"):
        registry.open_pipeline(tiny_bundle, engine="toy")
    main(["info"])
    assert re.search("^engine toy +there is no toybox here$", capsys.readouterr().out, re.M)


def test_every_choice_knows_it(toy, tiny_bundle, tmp_path, capsys):
    main(["info"])
    assert re.search("^engine toy +made of wood$", capsys.readouterr().out, re.M)

    for command in (
        ["serve"],
        ["find", "x"],
        ["evaluate", "x"],
        ["repository", "-o", "x"],
        ["fleet"],
    ):
        assert build_parser().parse_args([*command, "--engine", "toy"]).engine == "toy"
    tune = build_parser().parse_args(["tune", "x", "--p99", "1", "-o", "y", "--engines", "toy"])
    assert tune.engines == ["toy"]

    settings = Settings(engine="toy", precision="bfloat16", device="toybox:1")
    with pytest.raises(InputError, match="precision of the toy engine is 'int8'"):
        Settings(engine="toy", precision="int8")
    repository = write_repository(tiny_bundle, tmp_path / "models", settings)
    config = pb.ModelConfig()
    text_format.Parse((repository / "track_finding/config.pbtxt").read_text(), config)
    given = {name: value.string_value for name, value in config.parameters.items()}
    assert (given["engine"], given["device"], given["precision"]) == ("toy", "toybox:1", "bfloat16")
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU  # not a processor

    tuning = Tuning(tiny_bundle, [], Goal(p99=1.0), tmp_path / "tuning", precisions=("bfloat16",))
    assert tuning.engines[-1] == "toy"
    others = tuning.along("engine and shape", Candidate(precision="bfloat16"))
    assert {(c.engine, c.precision) for c in others} >= {
        ("toy", "bfloat16"),
        ("reference", "bundle"),  # it has no bfloat16
    }


def test_the_command_line_finds_tracks_on_it(toy, tiny_bundle, tmp_path, capsys):
    hits = straight_tracks(tracks=20, noise=10)
    rows = np.column_stack([hits.hit_id, hits.table(("x", "y", "z"))])
    path = tmp_path / "event000000001-hits.csv"
    np.savetxt(path, rows, "%d,%.9g,%.9g,%.9g", header="hit_id,x,y,z", comments="")
    bundle = ["--bundle", str(tiny_bundle.path)]
    found = []
    for name in ("toy", "reference"):
        assert main(["find", str(path), "--local", *bundle, "--engine", name]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == len(hits) + 1
