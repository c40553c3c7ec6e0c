"""Networks of another training, made into those of a bundle: names, edges, directions, logits.

Nodes are put before and behind a foreign ONNX network, so that it takes ``features`` and ``edges`` and
returns what the pipeline expects; its own nodes and weights stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trackserve.errors import BundleError, InputError
from trackserve.pipeline.networks import METADATA, first_line, load_network, run_network
from trackserve.pipeline.scales import LEAST, MOST

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle

PREFIX = "foreign/"
SMALLEST_SCORE = 1e-7
"""Scores are held this far from 0 and 1, so that their logits are finite."""
FLOATS = {TensorProto.FLOAT}
INTEGERS = {TensorProto.INT64, TensorProto.INT32}


@dataclass(frozen=True)
class EdgeNetwork:
    """How a foreign network takes edges and what it returns.

    ``both_directions``: it was trained on a graph with each edge in both directions; their logits are
    averaged. ``scores``: it returns scores in [0, 1], not logits; None looks for a sigmoid at its end.
    """

    both_directions: bool = False
    scores: bool | None = None


def adopt_network(
    source: Path, target: Path, *, width: int, form: EdgeNetwork | None = None
) -> list[str]:
    """Write the network that a bundle has of a foreign one; return in words what was changed.

    ``width`` is the number of features; ``form`` is None for the embedding. Raises :class:`BundleError`
    for a file that is no network, and for inputs of another kind.
    """
    try:
        model = onnx.compose.add_prefix(onnx.load(source), PREFIX)
    except Exception as error:
        message = f"{source} is not a valid ONNX network: {first_line(error)}"
        raise BundleError(message) from None
    graph, changes = model.graph, _Changes()
    weights = {tensor.name for tensor in graph.initializer}
    taken = [each for each in graph.input if each.name not in weights]
    features = [each for each in taken if each.type.tensor_type.elem_type in FLOATS]
    pairs = [each for each in taken if each.type.tensor_type.elem_type in INTEGERS]
    expected = 0 if form is None else (1, 2)
    if len(features) != 1 or len(features) + len(pairs) != len(taken):
        _refuse(source, taken, "one float32 input of features, and for edges int64 ones")
    if (form is None and pairs) or (form is not None and len(pairs) not in (1, 2)):
        _refuse(source, taken, f"{expected or 'no'} int64 input: edges [2, E], or src and dst [E]")
    if len(graph.output) != 1:
        message = f"{source} has {len(graph.output)} outputs; expected one"
        raise BundleError(message)
    changes.rename("features", features[0].name)
    given = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["hits", width])]
    raw, dims = graph.output[0].name, ["hits", None]
    if form is not None:
        given.append(helper.make_tensor_value_info("edges", TensorProto.INT64, [2, "edges"]))
        changes.edges([(each.name, each.type.tensor_type.elem_type) for each in pairs], form)
        raw, dims = changes.logits(graph, raw, form), ["edges"]
    else:
        changes.after.append(helper.make_node("Identity", [raw], ["points"]))
        raw = "points"
        shape = graph.output[0].type.tensor_type.shape.dim
        dims[1] = shape[-1].dim_value if shape else None
    nodes = [*changes.before, *graph.node, *changes.after]
    output = helper.make_tensor_value_info(raw, TensorProto.FLOAT, dims)
    whole = helper.make_graph(
        nodes, "adopted", given, [output], [*graph.initializer, *changes.constants]
    )
    adopted = helper.make_model(
        whole,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
    )
    try:
        onnx.save(adopted, target)
        onnx.checker.check_model(adopted)
    except Exception as error:
        message = f"{source} can't be adopted: {first_line(error)}"
        raise BundleError(message) from None
    return changes.words


def _refuse(source: Path, taken: list[onnx.ValueInfoProto], expected: str) -> None:
    kinds = ", ".join(
        f"{each.name.removeprefix(PREFIX)} {TensorProto.DataType.Name(each.type.tensor_type.elem_type)}"
        for each in taken
    )
    message = f"{source} has the inputs {kinds or 'none'}; expected {expected}"
    raise BundleError(message)


class _Changes:
    """Nodes before and behind a foreign network, with their constants, and what they do in words."""

    def __init__(self) -> None:
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.words: list[str] = []

    def constant(self, name: str, value: object, dtype: type) -> str:
        """Keep a constant and return its name."""
        if name not in {each.name for each in self.constants}:
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def rename(self, ours: str, theirs: str) -> None:
        """Feed an input of ours to one of the network's."""
        self.before.append(helper.make_node("Identity", [ours], [theirs]))
        if ours != (name := theirs.removeprefix(PREFIX)):
            self.words.append(f"its input {name} gets {ours}")

    def edges(self, pairs: list[tuple[str, int]], form: EdgeNetwork) -> None:
        """Feed edges ``[2, E]``: as they are, or as source and target; in both directions if asked for."""
        whole = "edges"
        if form.both_directions:
            swap = self.constant("swap", [1, 0], np.int64)
            self.before += [
                helper.make_node("Gather", ["edges", swap], ["edges_back"], axis=0),
                helper.make_node("Concat", ["edges", "edges_back"], ["edges_both"], axis=1),
            ]
            whole = "edges_both"
            self.words.append("it gets each edge in both directions, and their logits are averaged")
        for number, (name, kind) in enumerate(pairs):
            part = whole
            if len(pairs) == 2:
                row, part = self.constant(f"row_{number}", number, np.int64), f"end_{number}"
                self.before.append(helper.make_node("Gather", [whole, row], [part], axis=0))
            self.before.append(helper.make_node("Cast", [part], [name], to=kind))
        names = [name.removeprefix(PREFIX) for name, _ in pairs]
        if len(names) == 2:
            self.words.append(
                f"its inputs {names[0]} and {names[1]} get the inner and the outer hit"
            )
        elif names != ["edges"]:
            self.words.append(f"its input {names[0]} gets edges")

    def logits(self, graph: onnx.GraphProto, raw: str, form: EdgeNetwork) -> str:
        """Make a logit for each edge of what the network returns, and return its name."""
        last = next((node for node in graph.node if raw in node.output), None)
        sigmoid = last is not None and last.op_type == "Sigmoid"
        if sigmoid and form.scores is not False:
            assert last is not None
            raw = last.input[0]
            self.words.append("the sigmoid at its end is left out: the pipeline takes logits")
        elif form.scores:
            least = self.constant("least", SMALLEST_SCORE, np.float32)
            most = self.constant("most", 1 - SMALLEST_SCORE, np.float32)
            one = self.constant("one", 1, np.float32)
            self.after += [
                helper.make_node("Max", [raw, least], ["score_above"]),
                helper.make_node("Min", ["score_above", most], ["score"]),
                helper.make_node("Sub", [one, "score"], ["score_against"]),
                helper.make_node("Log", ["score"], ["log_for"]),
                helper.make_node("Log", ["score_against"], ["log_against"]),
                helper.make_node("Sub", ["log_for", "log_against"], ["logit_of_score"]),
            ]
            raw = "logit_of_score"
            self.words.append("its scores become logits")
        if form.both_directions:
            shape = self.constant("two_rows", [2, -1], np.int64)
            rows = [self.constant(f"row_{number}", number, np.int64) for number in (0, 1)]
            half = self.constant("half", 0.5, np.float32)
            self.after += [
                helper.make_node("Reshape", [raw, shape], ["two_logits"]),
                helper.make_node("Gather", ["two_logits", rows[0]], ["logit_there"], axis=0),
                helper.make_node("Gather", ["two_logits", rows[1]], ["logit_back"], axis=0),
                helper.make_node("Add", ["logit_there", "logit_back"], ["logit_sum"]),
                helper.make_node("Mul", ["logit_sum", half], ["logits"]),
            ]
        else:
            flat = self.constant("flat", [-1], np.int64)
            self.after.append(helper.make_node("Reshape", [raw, flat], ["logits"]))
        return "logits"


def slow_networks(bundle: Bundle) -> list[str]:
    """Return the networks that only the reference engine can run: their metadata has no layers."""
    return [
        name
        for name in bundle.networks
        if METADATA
        not in {each.key for each in onnx.load(bundle.path / f"{name}.onnx").metadata_props}
    ]


def slow_networks_text(bundle: Bundle) -> str:
    """Return in words which networks of a bundle are slow, nothing if none are."""
    slow = slow_networks(bundle)
    if not slow:
        return ""
    return (
        f"{', '.join(slow)} of {bundle.name} run on the reference engine, which is slower by far: the "
        "fast engines know the networks that `trackserve train` writes"
    )


def check_scales(
    scales: list[float], columns: list[str], lowest: list[float], highest: list[float]
) -> list[str]:
    """Return a line for each feature with its scaled range in events, given in its own units.

    Raises :class:`InputError` where a feature reaches beyond 10 or nowhere beyond 0.01: a network was
    hardly trained on that, and the scale is likely in another unit.
    """
    lines = []
    for column, scale, low, high in zip(columns, scales, lowest, highest, strict=True):
        reach = max(abs(low), abs(high)) / scale
        lines.append(
            f"{column}: {low:.4g} to {high:.4g}, scaled {low / scale:.3g} to {high / scale:.3g}"
        )
        if not LEAST <= reach <= MOST:
            message = (
                f"{lines[-1]}: with the scale {scale:g} it reaches {reach:.3g}; expected about 1, so give the "
                "divisor that the networks were trained with (--scales)"
            )
            raise InputError(message)
    return lines


def embedding_dimension(path: Path, width: int) -> int:
    """Return how many dimensions an embedding has, by running it on one hit."""
    return int(run_network(load_network(path, 1), np.zeros((1, width), np.float32)).shape[1])
