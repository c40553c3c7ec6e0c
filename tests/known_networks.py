"""Networks of the family with random numbers, as torch modules and as ONNX files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from trackserve.pipeline.features import FeatureColumns
from trackserve.training.networks import Embedding, Filter, Gnn, TripletFilter

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.2, 1000.0), {})
WITH_SHAPES = FeatureColumns(
    ("cells", "z", "r", "charge", "phi"), (10.0, 500.0, 1000.0, 2.0, 3.2), {}
)

KINDS = {"embedding": Embedding, "filter": Filter, "triplets": TripletFilter, "gnn": Gnn}


def network(kind: str, columns: FeatureColumns, *, seed: int = 0, **sizes: int) -> torch.nn.Module:
    """A network whose numbers all differ, those of normalisations included."""
    made = KINDS[kind](columns, **sizes)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in made.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        scale = 1.4 / np.sqrt(tensor.shape[-1]) if tensor.dim() == 2 else 0.3
        ones = tensor.dim() == 1 and name.endswith("weight")
        tensor.data = noise * scale + ones
    return made.eval()


def describe(kind: str, columns: FeatureColumns, **sizes: int) -> dict[str, object]:
    """What training writes into the metadata."""
    return {"kind": kind, "columns": columns.columns, "scales": columns.scales, **sizes}


def write_numbers(path: Path, made: torch.nn.Module, description: dict[str, object]) -> None:
    """Write an ONNX file with a network's numbers and metadata, whose graph computes nothing.

    It takes milliseconds; an export from torch takes seconds.
    """
    numbers = {name: t.detach().numpy() for name, t in made.named_parameters()}
    nodes = [
        onnx.helper.make_node(
            "LayerNormalization", ["x", name, name.replace("weight", "bias")], [f"y{name}"]
        )
        for name, values in numbers.items()
        if values.ndim == 1 and name.endswith("weight")
    ]
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in numbers.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "numbers", [], [], tensors))
    model.metadata_props.add(key="trackserve.network", value=json.dumps(description))
    onnx.save(model, path)


def made_up_event(
    columns: FeatureColumns, *, hits: int, edges: int, triplets: int = 0, seed: int = 0
):
    """Features of hits, edges that point outwards between any of them, and pairs of any edges."""
    rng = np.random.default_rng(seed)
    features = rng.random((hits, len(columns.columns)), np.float32)
    features[:, columns.columns.index("z")] -= np.float32(0.5)
    features[:, columns.columns.index("phi")] -= np.float32(0.5)

    def pairs(rows, count):
        ends = rng.integers(max(rows, 1), size=(2, count if rows else 0))
        return tuple(np.ascontiguousarray(e, np.int32) for e in np.sort(ends, axis=0))

    return features, pairs(hits, edges), pairs(edges, triplets)


def inputs_of(kind, features, edges, triplets):
    """Return those that a network of this kind takes."""
    return (features, edges, triplets)[: {"embedding": 1, "filter": 2}.get(kind, 3)]
