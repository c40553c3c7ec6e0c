from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from known_networks import (
    COLUMNS,
    WITH_SHAPES,
    describe,
    inputs_of,
    made_up_event,
    network,
    write_numbers,
)
from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.networks import NativeNetwork, UnknownNetworkError

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
"""Largest difference from torch, relative to the largest output or 1, and for bfloat16 its mean."""
SIZES = {
    "embedding": [
        {"width": 16, "layers": 1, "dimension": 3},
        {"width": 64, "layers": 4, "dimension": 8},
        {"width": 128, "layers": 2, "dimension": 20},
    ],
    "filter": [{"width": 32, "layers": 1}, {"width": 80, "layers": 2}, {"width": 48, "layers": 3}],
    "triplets": [
        {"width": 32, "layers": 2},
        {"width": 48, "layers": 1},
        {"width": 128, "layers": 3},
    ],
    "gnn": [
        {"width": 16, "steps": 1},
        {"width": 64, "steps": 4},
        {"width": 96, "steps": 2},
        {"width": 112, "steps": 2},
        {"width": 128, "steps": 1},
    ],
}

each_variant = pytest.mark.parametrize("variant", variants())
each_size = pytest.mark.parametrize(
    ("kind", "sizes"), [(kind, sizes) for kind, all_sizes in SIZES.items() for sizes in all_sizes]
)
COUNTS = [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 2, 1), (48, 96, 48), (700, 2001, 6500)]


@pytest.fixture
def write(tmp_path):
    def written(kind, columns, **sizes):
        made = network(kind, columns, **sizes)
        write_numbers(tmp_path / "network.onnx", made, describe(kind, columns, **sizes))
        return made, tmp_path / "network.onnx"

    return written


@each_variant
@each_size
def test_outputs_equal_torch(variant, kind, sizes, write):
    for columns in (COLUMNS, WITH_SHAPES):
        made, path = write(kind, columns, **sizes)
        for precision in (
            TOLERANCE.keys() & library(variant).precisions()
        ):  # 8 bits: test_native_int8.py
            native = NativeNetwork(path, library(variant), precision=precision)
            for hits, edges, triplets in COUNTS:
                event = made_up_event(columns, hits=hits, edges=edges, triplets=triplets)
                features, *pairs = inputs_of(kind, *event)
                rows = (torch.from_numpy(np.stack(pair).astype(np.int64)) for pair in pairs)
                with torch.no_grad():
                    expected = made(torch.from_numpy(features), *rows).numpy()
                found = native(features, *pairs, threads=2)
                assert found.shape == expected.shape
                if found.size:
                    difference = np.abs(found - expected)
                    worst = difference.max() if precision == "float32" else difference.mean()
                    assert worst <= TOLERANCE[precision] * max(1, np.abs(expected).max())


@each_variant
@pytest.mark.parametrize("kind", SIZES)
def test_threads_and_repetition_change_nothing(variant, kind, write):
    _, path = write(kind, COLUMNS, **SIZES[kind][1])
    event = made_up_event(COLUMNS, hits=5000, edges=20_000, triplets=30_000)
    inputs = inputs_of(kind, *event)
    native = NativeNetwork(path, library(variant))
    first = native(*inputs)
    for threads in (1, 2, 3):
        again = native(*inputs, threads=threads)
        np.testing.assert_array_equal(again, first)


@each_variant
def test_an_event_behind_others_has_the_logits_that_it_has_alone(variant, write):
    _, path = write("gnn", COLUMNS, **SIZES["gnn"][1])
    native = NativeNetwork(path, library(variant))
    features, edges, triplets = made_up_event(COLUMNS, hits=5000, edges=20_000, triplets=60_000)
    alone = native(features, edges, triplets)
    others = made_up_event(COLUMNS, hits=700, edges=1000, triplets=1500, seed=1)
    together = native(
        np.concatenate([others[0], features]),
        tuple(
            np.concatenate([o, e + np.int32(700)]) for o, e in zip(others[1], edges, strict=True)
        ),
        tuple(
            np.concatenate([o, t + np.int32(1000)])
            for o, t in zip(others[2], triplets, strict=True)
        ),
    )
    np.testing.assert_array_equal(together[1000:], alone)


@each_variant
@pytest.mark.parametrize("kind", SIZES)
def test_numbers_that_are_not_finite_stay_in_their_graph(variant, kind, write):
    """The last half of the hits are broken and linked among themselves; the others don't notice."""
    _, path = write(kind, COLUMNS, **SIZES[kind][1])
    features, edges, triplets = made_up_event(COLUMNS, hits=50, edges=300, triplets=500)
    broken = np.resize(np.array([np.nan, np.inf, -np.inf, 3e38], np.float32), (50, 1))
    both = np.concatenate([features, np.broadcast_to(broken, features.shape)])
    both_edges = tuple(np.concatenate([end, end + 50]) for end in edges)
    both_triplets = tuple(np.concatenate([end, end + 300]) for end in triplets)
    native = NativeNetwork(path, library(variant))
    alone = native(*inputs_of(kind, features, edges, triplets))
    healthy = native(*inputs_of(kind, both, both_edges, both_triplets))[: len(alone)]
    np.testing.assert_allclose(healthy, alone, rtol=1e-4, atol=1e-5)


def rename_first_tensor(model):
    model.graph.initializer[0].name = "other"


def metadata(old, new):
    def change(model):
        entry = model.metadata_props[0]
        entry.value = entry.value.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (metadata("filter", "other"), "'other'"),
        (metadata("width", "breadth"), "no complete 'trackserve.network'"),
        (metadata("{", ""), "no complete 'trackserve.network'"),
        (lambda model: model.metadata_props.pop(), "no 'trackserve.network', as"),
        (rename_first_tensor, "no such tensor"),
        (metadata("48", "40"), "width 40"),
        (metadata("48", "64"), r"should be \[64, 7\]; there is \[48, 7\]"),
    ],
)
def test_other_networks_are_declined_with_the_reason(write, change, complaint):
    _, path = write("filter", COLUMNS, width=48, layers=2)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(UnknownNetworkError, match=complaint):
        NativeNetwork(path, library())


def test_a_gnn_without_triplets_is_declined(write):
    _, path = write("filter", COLUMNS, width=48, layers=2)
    model = onnx.load(path)
    metadata('"kind": "filter"', '"kind": "gnn", "steps": 2')(model)
    onnx.save(model, path)
    with pytest.raises(UnknownNetworkError, match="takes no triplets"):
        NativeNetwork(path, library())
