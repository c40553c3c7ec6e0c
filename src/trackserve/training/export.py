"""From torch to a bundle: ONNX files that give what torch gives, and bundle.toml."""

from __future__ import annotations

import io
import json
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tomli_w
import torch

from trackserve.bundle import BUNDLE_FILE, FORMAT
from trackserve.errors import BundleError
from trackserve.files import whole, write_text
from trackserve.pipeline.networks import METADATA, load_network, run_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from trackserve.event import Float32, Int64

TOLERANCE = 1e-3
"""Largest difference of an output of ONNX from torch's, for outputs of order 1 to 10."""


def export_network(
    network: nn.Module,
    path: Path,
    *,
    output: str,
    description: Mapping[str, Any],
    features: Float32,
    edges: Int64 | None = None,
    triplets: Int64 | None = None,
) -> float:
    """Write a network as ONNX and return its largest difference from torch on these inputs.

    ``features`` ``[N, F]`` and ``edges`` ``[2, E]`` come from a real event. ``description`` goes into
    the file's metadata, where a faster engine recognises the family by it. Raises
    :class:`BundleError` where the difference exceeds TOLERANCE.
    """
    network = network.cpu().eval()
    inputs: tuple[torch.Tensor, ...] = (torch.from_numpy(features),)
    dynamic: tuple[dict[int, str], ...] = ({0: "hits"},)
    names = ["features"]
    if edges is not None:
        inputs = (*inputs, torch.from_numpy(edges))
        dynamic = (*dynamic, {1: "edges"})
        names.append("edges")
    if triplets is not None:
        inputs = (*inputs, torch.from_numpy(triplets))
        dynamic = (*dynamic, {1: "triplets"})
        names.append("triplets")
    # It warns of operators of vision that it leaves out.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            inputs,
            input_names=names,
            output_names=[output],
            dynamic_shapes=dynamic,
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        message = f"torch returned no ONNX program for {path.name}"
        raise BundleError(message)
    model = program.model_proto
    strip_traces(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(dict(description), sort_keys=True)
    with whole(path) as beside:
        onnx.save(model, beside)

    with torch.no_grad():
        expected = network(*inputs).numpy()
    found = run_network(load_network(path, threads=1), features, edges, triplets)
    difference = float(np.abs(found - expected).max(initial=0))
    if not difference <= TOLERANCE:
        message = f"{path} differs from torch by {difference:.2g}; expected at most {TOLERANCE:g}"
        raise BundleError(message)
    return difference


def take_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights of an exported one, as far as they have the same names and shapes.

    Raises :class:`BundleError` where none does.
    """
    known = {part.name: part for part in onnx.load(path).graph.initializer}
    state = {
        name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(known[name])))
        for name, old in network.state_dict().items()
        if name in known and tuple(known[name].dims) == tuple(old.shape)
    }
    if not state:
        message = (
            f"{path} has no weight of the network's names and shapes; expected its family and width"
        )
        raise BundleError(message)
    network.load_state_dict(state, strict=False)


def strip_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the Python code behind each node: paths, stack traces."""
    model.doc_string = ""
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write ``bundle.toml``."""
    write_text(folder / BUNDLE_FILE, tomli_w.dumps({"format": FORMAT, **description}))
