"""Bundles with small networks of random weights, as another training might export them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from trackserve.bundle import Bundle, read_bundle
from trackserve.event import Clusters, Hits, Modules

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    *("r", "phi", "z", "eta", "cos_phi", "sin_phi", "theta"),
    *("volume_id", "layer_id", "cells", "length_u", "charge"),
)
SCALES = (1000.0, 3.2, 1000.0, 4.0, 1.0, 1.0, 3.2, 18.0, 14.0, 10.0, 10.0, 1.0)
BUNDLE_FILE = """
format = 1
name = "tiny"
detector = "made for a test"

[features]
columns = {columns}
scales = {scales}
absent = {{ {absent} }}

[embedding]
dimension = {dimension}

[neighbours]
radius = {radius}
limit = 4

[filter]
cut = 0.2

[tracks]
method = "{method}"
cut = 0.5
"""


def write_tiny_bundle(
    folder: Path,
    *,
    features: int = 3,
    dimension: int = 4,
    width: int = 8,
    radius: float = 1.0,
    method: str = "components",
    logit_column: bool = False,
    seed: int = 1,
) -> Bundle:
    """Write a bundle with this many features and read it back.

    ``logit_column`` exports the edges' logits as ``[E, 1]``, as some trainings do.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    columns = list(COLUMNS[:features])
    (folder / "bundle.toml").write_text(
        BUNDLE_FILE.format(
            columns=columns,
            scales=list(SCALES[:features]),
            absent=", ".join(f"{c} = 1.0" for c in columns[7:]),
            dimension=dimension,
            radius=radius,
            method=method,
        )
    )
    _save(
        folder / "embedding.onnx",
        rng,
        features,
        "",
        f"float[n, {dimension}] embedding",
        [
            *_layer("features", "hidden", features, width),
            *_layer("Tanh:hidden", "embedding", width, dimension),
        ],
    )
    logits = ("float[e, 1] logits", "logits = Identity(pair)")
    if not logit_column:
        logits = (
            "float[e] logits",
            "one = Constant<value_ints=[1]>()\nlogits = Squeeze(pair, one)",
        )
    ends = [
        "zero = Constant<value_int=0>()",
        "first = Gather<axis=0>(edges, zero)",
        "unit = Constant<value_int=1>()",
        "second = Gather<axis=0>(edges, unit)",
    ]
    pairs = ["a = Gather<axis=0>({0}, first)", "b = Gather<axis=0>({0}, second)",
             "both = Concat<axis=1>(a, b)"]  # fmt: skip
    _save(
        folder / "filter.onnx",
        rng,
        features,
        ", int64[2, e] edges",
        logits[0],
        [
            *ends,
            *(p.format("features") for p in pairs),
            *_layer("both", "hidden", 2 * features, width),
            *_layer("Relu:hidden", "pair", width, 1),
            logits[1],
        ],
    )
    _save(
        folder / "gnn.onnx",
        rng,
        features,
        ", int64[2, e] edges",
        logits[0],
        [
            *ends,
            *_layer("features", "hidden", features, width),
            "node = Tanh(hidden)",
            "sent = Gather<axis=0>(node, first)",
            "axis = Constant<value_ints=[1]>()",
            "column = Unsqueeze(second, axis)",
            "like = Shape(sent)",
            "index = Expand(column, like)",
            'summed = ScatterElements<axis=0, reduction="add">(node, index, sent)',
            *(p.format("summed") for p in pairs),
            *_layer("both", "pair", 2 * width, 1),
            logits[1],
        ],
    )
    return read_bundle(folder)


def _layer(source: str, target: str, inputs: int, outputs: int) -> list[str]:
    """Nodes of a dense layer; its weights are named after ``target`` and their sizes."""
    weights = f"w_{target}_{inputs}_{outputs}"
    activated = source
    nodes = []
    if ":" in source:
        function, source = source.split(":")
        activated = f"{source}_activated"
        nodes.append(f"{activated} = {function}({source})")
    return [*nodes, f"{target}_product = MatMul({activated}, {weights})",
            f"{target} = Add({target}_product, b_{target}_{inputs}_{outputs})"]  # fmt: skip


def _save(path, rng, features, more, output, nodes):  # noqa: PLR0917
    text = f"""<ir_version: 9, opset_import: ["": 18]>
    tiny (float[n, {features}] features{more}) => ({output}) {{ {chr(10).join(nodes)} }}"""
    model = onnx.parser.parse_model(text)
    for name in sorted(
        {i for node in model.graph.node for i in node.input if i[:2] in {"w_", "b_"}}
    ):
        kind, _, rows, columns = name.split("_")
        shape = (int(rows), int(columns)) if kind == "w" else (int(columns),)
        array = rng.normal(scale=1.0 if kind == "w" else 0.3, size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)


def straight_tracks(*, tracks: int, noise: int = 0, seed: int = 1) -> Hits:
    """Hits of straight tracks through ten cylinders, with noise among them, in random order."""
    rng = np.random.default_rng(seed)
    radius = np.linspace(32, 1000, 10)
    phi = rng.uniform(-np.pi, np.pi, (tracks, 1)) + rng.normal(scale=1e-3, size=(tracks, 10))
    z = rng.uniform(-1.5, 1.5, (tracks, 1)) * radius
    position = np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=-1).reshape(-1, 3)
    position = np.concatenate([position, rng.uniform(-850, 850, (noise, 3))])
    rng.shuffle(position)
    x, y, z = np.ascontiguousarray(position.T, dtype=np.float32)
    count = len(position)

    def numbers(high: int) -> np.ndarray:
        return rng.integers(1, high, count).astype(np.int32)

    return Hits(
        hit_id=np.arange(1, count + 1),
        x=x,
        y=y,
        z=z,
        modules=Modules(numbers(18), numbers(14), numbers(999)),
        clusters=Clusters(numbers(9), numbers(5), numbers(5), rng.random(count, np.float32)),
    )
