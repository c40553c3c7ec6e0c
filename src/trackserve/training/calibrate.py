"""Calibration: which activations 8 bits must hold in the filter and in the triplet classifier.

The range of each hidden layer goes into the file's metadata. What a network computes in other
precisions stays the same, but the bundle's digest changes: it names what may be answered.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.engines.registry import open_pipeline
from trackserve.errors import BundleError, InputError
from trackserve.event import Float32, Int64
from trackserve.files import whole, whole_folder
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.networks import METADATA
from trackserve.pipeline.triplets import join_edges

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.data import EventSource

EVENTS, ROWS = 8, 200_000
"""Most events that are looked at, and most edges or triplets of each, drawn at random."""
LEAST = 0.01
"""A unit that is hardly ever above 0 has this share of the largest range of its layer."""
Seen = tuple[Float32, *tuple[Int64, ...]]
"""Features of an event ``[N, F]``, edges ``[2, E]`` and, for a triplet classifier, these ``[2, T]``."""


def calibrate(bundle: Bundle, sources: Sequence[EventSource], output: Path) -> None:
    """Write a copy of a bundle whose filter and triplet classifier have ranges for 8 bits.

    They come from the first of these events, which need no truth. Raises :class:`InputError` where ``output``
    exists or there are no events, :class:`BundleError` where the networks are not of the family that
    training makes.
    """
    if output.exists() or not sources:
        message = f"{output} exists; name a new folder" if sources else "there are no events"
        raise InputError(message)
    pipeline = open_pipeline(bundle, precision="float32")
    candidates, joined = [], []
    for source in sources[:EVENTS]:
        hits = source.read_columns(bundle.features.wire_columns, truth=False).hits
        found = pipeline.run(hit_features(hits, bundle.features))
        graph = found.filtered
        candidates.append((graph.features, some(found.candidates.edges)))
        if bundle.triplets is not None:
            triplets = some(join_edges(graph, bundle.features, bundle.triplets.cuts))
            joined.append((graph.features, graph.edges, triplets))
    with whole_folder(output) as beside:
        for member in (BUNDLE_FILE, *(f"{name}.onnx" for name in bundle.networks)):
            shutil.copy2(bundle.path / member, beside / member)
        write_ranges(beside / "filter.onnx", candidates)
        if joined:
            write_ranges(beside / "triplets.onnx", joined)
        read_bundle(beside)


def write_ranges(path: Path, events: Iterable[Seen]) -> None:
    """Write into a network's file the largest activation of each hidden unit on events."""
    model = onnx.load(path)
    entries = {entry.key: entry for entry in model.metadata_props}
    hidden = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    described = json.loads(entries[METADATA].value) if METADATA in entries else {}
    if described.get("layers") != len(hidden) or not hidden:
        message = (
            f"{path} is described with {described.get('layers', 'no')} hidden layers and has "
            f"{len(hidden)} ReLU; only a network as training exports it can be calibrated"
        )
        raise BundleError(message)
    described["ranges"] = _ranges(model, hidden, events)
    entries[METADATA].value = json.dumps(described, sort_keys=True)
    with whole(path) as beside:
        onnx.save(model, beside)


def _ranges(
    model: onnx.ModelProto, hidden: Sequence[str], events: Iterable[Seen]
) -> list[list[float]]:
    """Return the range of each unit, layer by layer."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden)
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(open_model.SerializeToString(), providers=providers)
    largest: Any = 0.0
    for event in events:
        if event[-1].shape[1]:
            feeds = dict(zip(("features", "edges", "triplets"), event, strict=False))
            here = [values.max(axis=0) for values in session.run(list(hidden), feeds)]
            largest = np.maximum(largest, here)
    ranges = np.maximum(largest, np.maximum(LEAST * np.max(largest, axis=-1, keepdims=True), 1e-6))
    return [[float(f"{value:.4g}") for value in layer] for layer in ranges]


def some(rows: Int64) -> Int64:
    """Return ``ROWS`` of edges or triplets ``[2, .]`` at random, or all if there are fewer."""
    if rows.shape[1] <= ROWS:
        return rows
    chosen = np.random.default_rng(0).choice(rows.shape[1], ROWS, replace=False)
    return np.ascontiguousarray(rows[:, np.sort(chosen)])
