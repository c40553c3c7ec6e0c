from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_family import FAMILY, SIZES

from known_networks import COLUMNS, inputs_of, made_up_event, network
from served import FREE_PORTS
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.client.status import read_status
from trackserve.engines.native.abi import variants
from trackserve.engines.native.engine import NativePipeline
from trackserve.engines.native.library import Library, library
from trackserve.engines.native.networks import NativeNetwork
from trackserve.engines.reference import ReferencePipeline
from trackserve.engines.registry import open_pipeline
from trackserve.event import ScoredGraph
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.pipeline.networks import load_network, run_network
from trackserve.pipeline.triplets import TripletCuts
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings
from trackserve.training.calibrate import write_ranges

EXAMPLES = Path(__file__).parents[3] / "examples/events"
each_variant = pytest.mark.parametrize("variant", variants())
TRIPLETS = """
[triplets]
cut = 0.5
cuts = { kink = 0.2, off = 10.0, slope = 1e-3, dphi = 0.1 }
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose networks have random numbers, as exported by training."""
    folder = tmp_path_factory.mktemp("bundles") / "family"
    write_tiny_bundle(folder)
    with (folder / "bundle.toml").open("a") as description:
        description.write(TRIPLETS)
    for kind in SIZES:
        shutil.copy(FAMILY / f"{kind}.onnx", folder)
    cuts = DoubletCuts(slope=1e-2, z0=2000.0, dphi=0.1, dcot=0.1)
    return replace(read_bundle(folder), radius=0.5, neighbour_limit=20, doublet_cuts=cuts)


@pytest.mark.parametrize("kind", SIZES)
def test_the_exported_networks_are_those_of_training(kind):
    """Else run: PYTHONPATH=tests python tests/engines/native/exported_family.py."""
    event = made_up_event(COLUMNS, hits=40, edges=90, triplets=70)
    features, *pairs = inputs_of(kind, *event)
    rows = [np.stack(pair).astype(np.int64) for pair in pairs]
    with torch.no_grad():
        expected = network(kind, COLUMNS, **SIZES[kind])(*map(torch.from_numpy, (features, *rows)))
    found = run_network(load_network(FAMILY / f"{kind}.onnx", 1), features, *rows)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_triplets_of_an_unknown_network_run_on_the_reference(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "mixed")
    for name in ("triplets", "gnn"):
        model = onnx.load(tmp_path / f"mixed/{name}.onnx")
        del model.metadata_props[:]
        onnx.save(model, tmp_path / f"mixed/{name}.onnx")
    mixed = replace(bundle, path=tmp_path / "mixed")
    features = hit_features(straight_tracks(tracks=50, noise=50), bundle.features)
    with pytest.warns(UserWarning, match=r"reference engine runs (triplets|gnn)\.onnx"):
        pipeline = NativePipeline(mixed)
    assert len(pipeline.notes) == 2
    found, reference = pipeline.run(features), ReferencePipeline(mixed).run(features)
    np.testing.assert_array_equal(found.joined.triplets, reference.joined.triplets)
    np.testing.assert_array_equal(found.labels(), reference.labels())


def test_an_unknown_network_runs_on_the_reference_with_a_message(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "mixed")
    other = write_tiny_bundle(tmp_path / "other")
    shutil.copy(other.filter_path, tmp_path / "mixed/filter.onnx")
    mixed = replace(bundle, path=tmp_path / "mixed")
    features = hit_features(straight_tracks(tracks=50, noise=50), bundle.features)
    with pytest.warns(UserWarning, match=r"reference engine runs filter\.onnx: its metadata"):
        pipeline = NativePipeline(mixed)
    assert len(pipeline.notes) == 1
    found, reference = pipeline.run(features), ReferencePipeline(mixed).run(features)
    np.testing.assert_array_equal(found.filtered.edges, reference.filtered.edges)
    np.testing.assert_array_equal(found.labels(), reference.labels())


def test_a_file_that_computes_something_else_than_it_says_is_noticed(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "altered")
    model = onnx.load(tmp_path / "altered/filter.onnx")
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Tanh"
    onnx.save(model, tmp_path / "altered/filter.onnx")
    with pytest.warns(UserWarning, match=r"filter\.onnx: its output differs"):
        NativePipeline(replace(bundle, path=tmp_path / "altered"))


def test_a_precision_that_the_processor_lacks_becomes_float32(bundle):
    pipeline = NativePipeline(bundle, precision="bfloat16", variant="portable")
    assert pipeline.precision == "float32"
    assert pipeline.notes == ["bfloat16 is computed in float32 by the engine's portable variant"]


def test_who_asks_for_a_precision_that_the_processor_lacks_is_told(bundle, monkeypatch):
    monkeypatch.setattr(Library, "precisions", lambda _: ("float32",))
    with pytest.warns(UserWarning, match="bfloat16 is computed in float32"):
        assert open_pipeline(bundle, engine="native", precision="bfloat16").precision == "float32"
    settings = Settings(engine="native", precision="bfloat16")
    with (
        pytest.warns(UserWarning, match="has no bfloat16; the server computes in float32"),
        serve(bundle, settings, **FREE_PORTS) as server,
    ):
        assert read_status(server.grpc_url)[0].precision == "float32"


def test_a_graph_needs_no_edges(bundle):
    nothing = replace(bundle, radius=1e-9)
    hits = straight_tracks(tracks=20)
    found = NativePipeline(nothing).run(hit_features(hits, bundle.features))
    assert found.candidates.edges.shape == (2, 0)
    assert isinstance(found.scored, ScoredGraph)
    assert (found.labels() == -1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"cut": 1 - 1e-6},
        {"cuts": TripletCuts(kink=1e-12)},
        {"cuts": TripletCuts(slope=1e-12)},
    ],
)
def test_a_graph_needs_no_triplets(bundle, settings):
    nothing = replace(bundle, triplets=replace(bundle.triplets, **settings))
    hits = straight_tracks(tracks=20)
    found = NativePipeline(nothing).run(hit_features(hits, bundle.features))
    assert found.filtered.edges.shape[1]
    assert found.joined.edges.shape == found.joined.triplets.shape == (2, 0)
    assert (found.labels() == -1).all()


# ---- 8 bits


@pytest.fixture
def everywhere(monkeypatch):
    """Let variants offer 8 bits that can compute them only slowly."""
    monkeypatch.setattr(Library, "precisions", lambda _: ("float32", "int8"))


@pytest.fixture
def with_ranges(bundle, tmp_path):
    """The engine tests' bundle, calibrated on made-up tracks."""
    shutil.copytree(bundle.path, tmp_path / "calibrated")
    copy = replace(bundle, path=tmp_path / "calibrated")
    found = NativePipeline(bundle).run(hit_features(straight_tracks(tracks=100), bundle.features))
    features, edges = found.scored.features, found.filtered.edges
    write_ranges(copy.filter_path, [(features, found.candidates.edges)])
    first, second = np.nonzero(edges[1][:, None] == edges[0])
    write_ranges(copy.triplets_path, [(features, edges, np.stack([first, second]))])
    return copy


@each_variant
@pytest.mark.usefixtures("everywhere")
def test_a_pipeline_in_8_bits_finds_nearly_the_same(with_ranges, variant):
    hits = straight_tracks(tracks=150, noise=200)
    features = hit_features(hits, with_ranges.features)
    exact = NativePipeline(with_ranges, variant=variant).run(features)
    pipeline = NativePipeline(with_ranges, precision="int8", variant=variant, threads=2)
    assert (pipeline.precision, pipeline.notes) == ("int8", [])
    found = pipeline.run(features)
    np.testing.assert_array_equal(found.candidates.edges, exact.candidates.edges)
    ours, theirs = (set(map(tuple, each.filtered.edges.T.tolist())) for each in (found, exact))
    assert (
        0 < len(ours ^ theirs) < 0.5 * len(theirs)
    )  # scores of random numbers are all near the cut
    assert found.joined.edges.shape[1] > 0


@each_variant
def test_triplets_are_found_by_the_logits_that_the_network_gives(with_ranges, variant):
    features = hit_features(straight_tracks(tracks=60), with_ranges.features)
    native = NativeNetwork(with_ranges.triplets_path, library(variant), precision="int8")
    hits = len(features) - 3
    inner = np.repeat(np.arange(hits, dtype=np.int32), 3)
    outer = inner + np.tile(np.arange(1, 4, dtype=np.int32), hits)
    position = tuple(np.ascontiguousarray(column) for column in features.T)
    cuts, order = (np.inf, 0.0, np.inf, 0.0), (inner, outer)
    triplets = library(variant).join_edges(position, order, cuts=cuts, threads=1)
    logits = native(features, order, triplets)
    least = float(np.median(logits))
    found = native.find_triplets(features, order, position, cuts=cuts, threshold=least)
    kept = logits >= least
    expected = set(zip(triplets[0][kept].tolist(), triplets[1][kept].tolist(), strict=True))
    assert set(zip(*(rows.tolist() for rows in found), strict=True)) == expected


@pytest.mark.usefixtures("everywhere")
def test_networks_without_ranges_are_computed_in_the_best_other_precision(bundle):
    pipeline = NativePipeline(bundle, precision="int8")
    assert len(pipeline.notes) == 2
    assert pipeline.notes[0] == (
        "filter.onnx has no ranges for int8 and is computed in float32; "
        "`trackserve calibrate` writes them"
    )
    features = hit_features(straight_tracks(tracks=50, noise=50), bundle.features)
    labels = NativePipeline(bundle, precision="float32").run(features).labels()
    np.testing.assert_array_equal(pipeline.run(features).labels(), labels)


@each_variant
def test_8_bits_are_offered_where_the_processor_multiplies_them(variant, with_ranges):
    fast = variant in {"avx512vnni", "avx512bf16"}
    assert ("int8" in library(variant).precisions()) == fast
    pipeline = NativePipeline(with_ranges, precision="int8", variant=variant)
    note = f"int8 is computed in float32 by the engine's {variant} variant"
    assert pipeline.notes == ([] if fast else [note])
    assert pipeline.precision == ("int8" if fast else "float32")
