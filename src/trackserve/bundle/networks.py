"""Whether an ONNX file is a network that the pipeline can call: its inputs, its output, bounded work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from trackserve.errors import BundleError
from trackserve.pipeline.networks import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trackserve.bundle import Bundle

UNBOUNDED = frozenset({"Loop", "Scan", "If", "SequenceMap"})
"""Operators whose work a file decides, and not the size of an event: no network of a bundle needs them."""


def check_network(bundle: Bundle, name: str) -> None:
    """Raise unless the ONNX file has the inputs and the output that the pipeline calls it with."""
    path = bundle.path / f"{name}.onnx"
    try:
        model = onnx.load(path, load_external_data=False)
        outside = any(map(onnx.external_data_helper.uses_external_data, _weights(model.graph)))
        if not outside:  # the checker would look for those files
            onnx.checker.check_model(model)
    except Exception as error:
        message = f"{path} is not a valid ONNX network: {first_line(error)}"
        raise BundleError(message) from None
    if outside:
        message = f"{path} keeps weights outside the file; export it with its weights inside"
        raise BundleError(message)
    if used := sorted({node.op_type for node in _nodes(model)} & UNBOUNDED):
        message = (
            f"{path} has the operator {used[0]}; a bundle's networks have no loops or branches"
        )
        raise BundleError(message)
    width = len(bundle.features.columns)
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    inputs: dict[str, tuple[int, tuple[int | None, ...]]] = {"features": (float32, (None, width))}
    if name != "embedding":
        inputs["edges"] = (int64, (2, None))
    if name == "triplets" or (name == "gnn" and bundle.triplets is not None):
        inputs["triplets"] = (int64, (2, None))
    output = (None, bundle.embedding_dimension) if name == "embedding" else (None,)
    initializers = {tensor.name for tensor in model.graph.initializer}
    found = {i.name: i for i in model.graph.input if i.name not in initializers}
    if found.keys() != inputs.keys():
        message = f"{path} has inputs {', '.join(found) or 'none'}; expected {', '.join(inputs)}"
        raise BundleError(message)
    if len(model.graph.output) != 1:
        message = f"{path} has {len(model.graph.output)} outputs; expected one"
        raise BundleError(message)
    for tensor, (dtype, shape) in inputs.items():
        _check_tensor(path, found[tensor], dtype, shape)
    _check_tensor(path, model.graph.output[0], float32, output)


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Give every tensor that is stored in a graph, in its nodes and in the graphs within them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _weights(inner)


def _check_tensor(path: Path, tensor: Any, dtype: int, shape: tuple[int | None, ...]) -> None:
    """Raise unless an ONNX tensor has this element type and, where stated, these dimensions."""

    def text(kind: int, dims: tuple[int | None, ...]) -> str:
        return f"{onnx.TensorProto.DataType.Name(kind)} [{', '.join('-' if d is None else str(d) for d in dims)}]"

    kind = tensor.type.tensor_type.elem_type
    dims = tuple(d.dim_value or None for d in tensor.type.tensor_type.shape.dim)
    trailing_one = len(shape) == 1 and len(dims) == 2 and dims[1] == 1
    fits = len(dims) == len(shape) and all(
        want is None or have is None or want == have for want, have in zip(shape, dims, strict=True)
    )
    if kind != dtype or not (fits or trailing_one):
        message = (
            f"{path}: tensor {tensor.name!r} is {text(kind, dims)}; expected {text(dtype, shape)}"
        )
        raise BundleError(message)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Give every node of a model, those in its functions and in the graphs within nodes among them."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)
