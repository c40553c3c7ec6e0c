from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.engines.reference import ReferencePipeline
from trackserve.engines.registry import fastest, open_pipeline
from trackserve.errors import BudgetError, InputError, MissingDependencyError
from trackserve.event import Hits
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.neighbours import DoubletCuts, neighbours
from trackserve.pipeline.tracks import find_tracks

pytest.importorskip("triton")
from trackserve.engines.gpu import ENGINE, device
from trackserve.engines.gpu.engine import GpuPipeline

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
foreign = pytest.mark.filterwarnings("ignore:onnxruntime runs:UserWarning")


@pytest.fixture(scope="module")
def pipeline(shipped):
    return GpuPipeline(shipped[0], device="cpu")


def test_every_stage_gives_what_the_reference_makes_of_its_input(shipped, pipeline):
    bundle, features, reference = shipped
    assert pipeline.notes == []
    found = pipeline.run(features)
    np.testing.assert_array_equal(found.order, reference.order)
    np.testing.assert_allclose(found.embedding, reference.embedding, atol=2e-5)
    candidates = neighbours(
        found.embedding,
        features[found.order],
        bundle.features,
        radius=bundle.radius,
        limit=bundle.neighbour_limit,
        cuts=bundle.doublet_cuts,
    )
    np.testing.assert_array_equal(found.candidates.edges, candidates.edges)
    np.testing.assert_array_equal(found.filtered.edges, reference.filtered.edges)
    np.testing.assert_array_equal(found.joined.edges, reference.joined.edges)
    np.testing.assert_array_equal(found.joined.triplets, reference.joined.triplets)
    np.testing.assert_allclose(found.scored.scores, reference.scored.scores, atol=1e-4)
    expected = find_tracks(found.scored, bundle.track_stage)
    np.testing.assert_array_equal(found.tracks.labels, expected.labels)
    np.testing.assert_array_equal(found.labels(), reference.labels())
    assert len(found.tracks) > 5


def test_an_event_in_a_batch_is_answered_as_alone_in_any_order_of_its_hits(shipped, pipeline):
    _, features, reference = shipped
    shuffled = np.random.default_rng(0).permutation(len(features))
    alone, none, mixed = pipeline.find_tracks_of_events(
        [features, features[:0], features[shuffled]]
    )
    np.testing.assert_array_equal(alone.labels, reference.labels())
    assert len(none.labels) == 0
    np.testing.assert_array_equal(mixed.labels, alone.labels[shuffled])
    assert pipeline.find_tracks_of_events([]) == []


def test_bfloat16_rounds_as_it_should(shipped):
    bundle, features, reference = shipped
    pipeline = open_pipeline(replace(bundle, precision="int8"), engine="gpu")
    assert pipeline.notes == ["int8 is computed in bfloat16 by the gpu engine here"]
    found = pipeline.run(features)
    difference = np.abs(found.embedding - reference.embedding).max()
    assert 1e-3 < difference < 0.1 * np.abs(reference.embedding).max()
    assert (found.labels() == reference.labels()).mean() > 0.9


@foreign
@pytest.mark.parametrize("method", ["components", "walk"])
def test_foreign_networks_run_on_onnxruntime_and_say_so(tmp_path, method):
    bundle = write_tiny_bundle(tmp_path / "tiny", method=method, features=12)
    features = hit_features(straight_tracks(tracks=30, noise=30), bundle.features)
    with pytest.warns(UserWarning, match=r"onnxruntime runs embedding\.onnx on the processor"):
        pipeline = GpuPipeline(bundle, device="cpu")
    assert len(pipeline.notes) == 3
    reference = ReferencePipeline(bundle).run(features)
    found = pipeline.run(features)
    np.testing.assert_array_equal(found.candidates.edges, reference.candidates.edges)
    np.testing.assert_array_equal(found.labels(), reference.labels())
    assert len(found.tracks)


@foreign
def test_triplets_of_a_foreign_network(shipped, tmp_path):
    bundle, features, reference = shipped
    shutil.copytree(bundle.path, tmp_path / "mixed")
    for name in ("triplets", "gnn"):
        model = onnx.load(tmp_path / f"mixed/{name}.onnx")
        del model.metadata_props[:]
        onnx.save(model, tmp_path / f"mixed/{name}.onnx")
    pipeline = GpuPipeline(replace(bundle, path=tmp_path / "mixed"), device="cpu")
    found = pipeline.run(features)
    np.testing.assert_array_equal(found.joined.triplets, reference.joined.triplets)
    np.testing.assert_array_equal(found.labels(), reference.labels())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_events_without_hits_with_one_and_with_two(pipeline, count):
    hits = Hits.from_positions(np.full((count, 3), 100.0) + np.arange(count)[:, None])
    assert len(pipeline.find_tracks(hits).labels) == count


def test_hostile_hits_are_answered(pipeline):
    same = np.full((300, 3), 0.1, np.float32)
    with pytest.raises(BudgetError, match="300 hits lie within 1 mm"):
        pipeline.find_tracks_from_features(same)
    rng = np.random.default_rng(0)
    huge = (rng.normal(size=(200, 3)) * 1e30).astype(np.float32)
    with pytest.raises(BudgetError, match="over budget"):
        pipeline.find_tracks_from_features(huge)
    with pytest.raises(InputError, match="nan"):
        pipeline.find_tracks_from_features(np.full((3, 3), np.nan, np.float32))
    with pytest.raises(InputError, match=r"expected float32 of shape \[N, 3\]"):
        pipeline.find_tracks_from_features(np.zeros((3, 2), np.float32))


def test_an_event_too_large_is_refused_and_the_next_one_answered(shipped):
    bundle, features, _ = shipped
    wide = replace(bundle, radius=100.0, doublet_cuts=DoubletCuts())
    pipeline = GpuPipeline(wide, device="cpu", memory=len(features) * 512)
    with pytest.raises(InputError, match=r"600 hits at once; cpu has room for \d+"):
        pipeline.find_tracks_from_features(np.resize(features, (600, 3)))
    with pytest.raises(InputError, match=r"this event has [\d,]+ pairs of hits .* has room for"):
        pipeline.find_tracks_from_features(features)  # every hit is a neighbour of every other
    answered = pipeline.find_tracks_from_features(features[:20])
    assert len(answered.labels) == 20


def test_a_device_that_is_not_here_is_refused_in_one_sentence(monkeypatch):
    assert device.open_device("cpu").in_interpreter
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(device, "DRIVERS", {})
    with pytest.raises(InputError, match=r"no GPU found: this machine has no driver"):
        device.open_device("cuda:0")
    monkeypatch.setattr(device, "DRIVERS", {"/dev/null": "NVIDIA"})
    with pytest.raises(InputError, match=r"torch .* finds no GPU and is built for processors only"):
        device.open_device("cuda:0")
    with pytest.raises(InputError, match=r"only in Triton's interpreter"):
        device.open_device("cpu")
    monkeypatch.setattr(device, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match=r"needs a C compiler.* found none of no-such-compiler"):
        device.open_device("cuda:0")
    monkeypatch.setattr(device, "missing_packages", lambda: ["torch", "triton"])
    with pytest.raises(ImportError, match=r"needs torch and triton: pip install"):
        device.open_device("cuda:0")


def test_auto_takes_a_gpu_and_never_the_interpreter(monkeypatch):
    """Without a GPU each reason is one sentence, and auto falls back on the next engine."""
    assert ENGINE.unavailable() is None
    assert not ENGINE.chosen_by_auto()
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(device, "DRIVERS", {})
    assert "no GPU found" in (ENGINE.unavailable() or "")
    assert fastest() != "gpu"
    with pytest.raises(MissingDependencyError, match="no GPU found"):
        open_pipeline(engine="gpu")
    monkeypatch.setattr(device, "DRIVERS", {"/dev/null": "NVIDIA"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert ENGINE.unavailable() == (
        "Tesla V100 has compute capability 7.0; the gpu engine needs 8.0 (A100) or newer"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert ENGINE.unavailable() is None
    assert fastest() == "gpu"
