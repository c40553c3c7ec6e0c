"""Calibration: the ranges of hidden units, by a pass through the network written out."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from trackserve.bundle import read_bundle, shipped_bundle
from trackserve.cli import main
from trackserve.data import find_events
from trackserve.engines.native.networks import read_family
from trackserve.errors import BundleError, InputError
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.networks import METADATA, load_network, run_network
from trackserve.training import calibrate as module
from trackserve.training.calibrate import calibrate, some, write_ranges
from trackserve.training.export import export_network
from trackserve.training.networks import Filter
from wedge import SHIPPED

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.0, 1000.0), {})
BUNDLE_FILE = {
    "kind": "filter",
    "width": 16,
    "layers": 2,
    "columns": list(COLUMNS.columns),
    "scales": list(COLUMNS.scales),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A filter whose first unit is never above 0, its file, and two events."""
    torch.manual_seed(0)
    network = Filter(COLUMNS, width=16, layers=2)
    network.first.pair.bias.data[0] = -1e3
    rng = np.random.default_rng(0)
    events = [(rng.random((50, 3), np.float32), rng.integers(50, size=(2, 80))) for _ in range(2)]
    path = tmp_path_factory.mktemp("exported") / "filter.onnx"
    features, edges = events[0]
    export_network(
        network, path, output="logits", description=BUNDLE_FILE, features=features, edges=edges
    )
    return network, path, events


def test_ranges_are_the_largest_activations_of_all_events(exported, tmp_path):
    network, path, events = exported
    copy = tmp_path / "filter.onnx"
    copy.write_bytes(path.read_bytes())
    write_ranges(copy, events)
    ranges = read_family(onnx.load(copy)).ranges
    largest = np.zeros((2, 16))
    for features, edges in events:
        given = torch.from_numpy(features), torch.from_numpy(edges)
        hits, pairs = network.inputs(*given)
        with torch.no_grad():
            one = network.first(pairs, hits, given[1]).relu()
            other = network.rest[1][0](one).relu()
        largest = np.maximum(largest, [one.numpy().max(axis=0), other.numpy().max(axis=0)])
    assert largest[0, 0] == 0
    np.testing.assert_allclose(
        ranges, np.maximum(largest, 0.01 * largest.max(axis=1, keepdims=True)), rtol=1e-3
    )


def test_the_network_answers_as_before(exported, tmp_path):
    _, path, events = exported
    copy = tmp_path / "filter.onnx"
    copy.write_bytes(path.read_bytes())
    write_ranges(copy, events)
    answers = [run_network(load_network(p, 1), *events[1]) for p in (path, copy)]
    np.testing.assert_array_equal(*answers)
    before, after = (
        {e.key: json.loads(e.value) for e in onnx.load(p).metadata_props} for p in (path, copy)
    )
    assert set(after[METADATA]) - set(before[METADATA]) == {"ranges"}


@pytest.mark.parametrize("change", ["metadata", "layers", "activation"])
def test_other_networks_are_declined(exported, tmp_path, change):
    _, path, events = exported
    model = onnx.load(path)
    if change == "metadata":
        del model.metadata_props[:]
    elif change == "layers":
        entry = model.metadata_props[0]
        entry.value = entry.value.replace('"layers": 2', '"layers": 3')
    else:
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Tanh"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="only a network as training exports it"):
        write_ranges(tmp_path / "other.onnx", events)


def test_some_rows_are_drawn_once_each(monkeypatch):
    rows = np.arange(40).reshape(2, 20)
    np.testing.assert_array_equal(some(rows), rows)
    monkeypatch.setattr(module, "ROWS", 5)
    drawn = some(rows)
    assert drawn.shape == (2, 5)
    assert len(np.unique(drawn[0])) == 5
    np.testing.assert_array_equal(drawn[1] - drawn[0], 20)


def test_a_bundle_is_copied_with_ranges(tmp_path, capsys):
    new = tmp_path / "calibrated"
    assert main(["calibrate", str(shipped_bundle()), str(SHIPPED), "-o", str(new)]) == 0
    assert capsys.readouterr().out == f"{new}\n"
    bundle, shipped = read_bundle(new), read_bundle()
    assert bundle.digest() != shipped.digest()
    for name in bundle.networks:
        family = read_family(onnx.load(new / f"{name}.onnx"))
        assert (family.ranges is not None) == (name in {"filter", "triplets"})
    same = ("bundle.toml", "embedding.onnx", "gnn.onnx")
    assert all((new / m).read_bytes() == (shipped.path / m).read_bytes() for m in same)


def test_nothing_is_overwritten_and_something_is_needed(tmp_path):
    with pytest.raises(InputError, match="exists; name a new folder"):
        calibrate(read_bundle(), find_events(SHIPPED), tmp_path)
    with pytest.raises(InputError, match="no events"):
        calibrate(read_bundle(), [], tmp_path / "new")
