"""Networks of another training become those of a bundle: worked out in numpy beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trackserve.bundle import read_bundle
from trackserve.bundle.foreign import (
    EdgeNetwork,
    adopt_network,
    check_scales,
    slow_networks,
)
from trackserve.cli import main
from trackserve.errors import BundleError, InputError
from trackserve.pipeline.networks import load_network, run_network

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
EDGES = np.array([[0, 1, 2, 0], [1, 2, 4, 3]], np.int64)
WEIGHTS = np.array([[0.3], [-1.2], [0.7]], np.float32)


def save(
    path: Path, inputs: list[tuple[str, int, list[object]]], nodes: list[object], out: str
) -> Path:
    """Save a network that ends in ``out``, with the weights ``[3, 1]`` as ``w``."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    returned = [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(WEIGHTS, "w")]
    graph = helper.make_graph(nodes, "theirs", given, returned, weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def edge_network(path: Path, *, scores: str = "") -> Path:
    """A network of ``x``, ``src`` [E] and ``dst`` [E], int32, whose logits depend on the direction."""
    nodes = [
        helper.make_node("Gather", ["x", "src"], ["a"]),
        helper.make_node("Gather", ["x", "dst"], ["b"]),
        helper.make_node("Mul", ["b", "b"], ["bb"]),
        helper.make_node("Sub", ["a", "bb"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["z"]),
    ]
    out = "z"
    if scores:
        nodes.append(helper.make_node("Sigmoid", ["z"], ["s"]))
        out = "s"
    if scores == "hidden":
        nodes.append(helper.make_node("Identity", ["s"], ["t"]))
        out = "t"
    end = TensorProto.INT32
    inputs = [("x", TensorProto.FLOAT, ["n", 3]), ("src", end, ["e"]), ("dst", end, ["e"])]
    return save(path, inputs, nodes, out)


def logits(edges: np.ndarray) -> np.ndarray:
    a, b = FEATURES[edges[0]], FEATURES[edges[1]]
    found: np.ndarray = ((a - b**2) @ WEIGHTS)[:, 0]
    return found


@pytest.mark.parametrize(("scores", "form"), [("", None), ("end", None), ("hidden", True)])
@pytest.mark.parametrize("both", [False, True])
def test_logits_are_theirs_whatever_edges_and_output_look_like(tmp_path, scores, form, both):
    source = edge_network(tmp_path / "theirs.onnx", scores=scores)
    words = adopt_network(source, tmp_path / "gnn.onnx", width=3, form=EdgeNetwork(both, form))
    found = run_network(load_network(tmp_path / "gnn.onnx", 1), FEATURES, EDGES)
    expected = (logits(EDGES) + logits(EDGES[::-1])) / 2 if both else logits(EDGES)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert "its inputs src and dst get the inner and the outer hit" in words
    assert any("both directions" in word for word in words) == both
    nothing = run_network(load_network(tmp_path / "gnn.onnx", 1), FEATURES[:0], EDGES[:, :0])
    assert nothing.shape == (0,)


def test_inputs_of_another_kind_are_refused(tmp_path):
    node = helper.make_node("Add", ["p", "q"], ["r"])
    kind = ("p", TensorProto.FLOAT, ["n", 3]), ("q", TensorProto.FLOAT, ["n", 3])
    source = save(tmp_path / "two.onnx", list(kind), [node], "r")
    with pytest.raises(BundleError, match="inputs p FLOAT, q FLOAT; expected one float32 input"):
        adopt_network(source, tmp_path / "x.onnx", width=3)
    with pytest.raises(BundleError, match=r"has the inputs .*expected no int64 input"):
        adopt_network(edge_network(tmp_path / "e.onnx"), tmp_path / "x.onnx", width=3)


def test_scales_in_another_unit_are_refused():
    assert check_scales([1000.0], ["r"], [30.0], [1020.0]) == ["r: 30 to 1020, scaled 0.03 to 1.02"]
    for scale in (1.0, 1e6):
        with pytest.raises(InputError, match="expected about 1"):
            check_scales([scale], ["r"], [30.0], [1020.0])


def test_the_command_makes_a_bundle_that_answers(tmp_path, capsys):
    node = helper.make_node("MatMul", ["spacepoints", "w"], ["y"])
    inputs = [("spacepoints", TensorProto.FLOAT, ["n", 3])]
    embedding = save(tmp_path / "embed.onnx", inputs, [node], "y")
    edges = edge_network(tmp_path / "edges.onnx", scores="end")
    rows = [f"{i},{30.0 * (i % 10 + 1)},{i // 10},{20 * i}" for i in range(60)]
    event = tmp_path / "event000000001-hits.csv"
    event.write_text("\n".join(["hit_id,x,y,z", *rows]) + "\n")
    folder = tmp_path / "mine"
    numbers = [
        "--radius",
        "0.1",
        "--filter-cut",
        "0.1",
        "--track-cut",
        "0.5",
        "--events",
        str(event),
    ]
    command = [
        "bundle",
        "adopt",
        str(embedding),
        str(edges),
        str(edges),
        "--columns",
        "r",
        "phi",
        "z",
    ]
    command += ["--both-directions", "gnn", *numbers, "-o", str(folder)]
    assert main([*command, "--scales", "1", "3.14159", "1000"]) == 2
    assert "r: 30" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*command, "--scales", "1000", "3.14159", "1000"]) == 0
    printed = capsys.readouterr().out
    assert "embedding: its input spacepoints gets features" in printed
    assert "slow: embedding, filter, gnn of mine" in printed
    bundle = read_bundle(folder)
    assert bundle.embedding_dimension == 1
    assert slow_networks(bundle) == ["embedding", "filter", "gnn"]
    assert slow_networks(read_bundle()) == []
