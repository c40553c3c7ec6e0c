"""8 bits: equal to the same arithmetic in numpy, near float32, and offered where they are fast."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from known_networks import COLUMNS, describe, inputs_of, made_up_event, network, write_numbers
from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library
from trackserve.engines.native.networks import NativeNetwork, UnknownNetworkError
from trackserve.pipeline.networks import METADATA

SIZES = [
    ("filter", {"width": 16, "layers": 1}),
    ("filter", {"width": 16, "layers": 3}),
    ("filter", {"width": 32, "layers": 2}),
    ("filter", {"width": 80, "layers": 3}),
    ("triplets", {"width": 16, "layers": 2}),
    ("triplets", {"width": 32, "layers": 1}),
    ("triplets", {"width": 128, "layers": 3}),
]
each_variant = pytest.mark.parametrize("variant", variants())
each_size = pytest.mark.parametrize(("kind", "sizes"), SIZES)


def layers_of(made, kind):
    """Return weight [outputs, inputs] and bias of each layer, the filter's first as one."""
    linear = [m for m in made.modules() if isinstance(m, torch.nn.Linear)]
    layers = [(m.weight.detach().numpy(), m.bias) for m in linear]
    if kind == "filter":
        (pair, bias), (inner, _), (outer, _), *rest = layers
        layers = [(np.concatenate([pair, inner, outer], axis=1), bias), *rest]
    return [(weight, bias.detach().numpy()) for weight, bias in layers]


def first_inputs(made, kind, features, edges, triplets):
    """Return what the first layer sees of each edge or triplet."""
    given = [torch.from_numpy(np.stack(pair).astype(np.int64)) for pair in (edges, triplets)]
    if kind == "triplets":
        return made.inputs(torch.from_numpy(features), *given)[1].numpy()
    hits, pairs = made.inputs(torch.from_numpy(features), given[0])
    return torch.cat([pairs, hits[given[0][0]], hits[given[0][1]]], dim=1).numpy()


def ranges_of(layers, x):
    """Return the largest activation of each hidden unit, layer by layer."""
    found = []
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
        found.append(np.maximum(x.max(axis=0), 0.1))
    return np.array(found, np.float32)


def in_8_bits(layers, ranges, x):
    """Return logits as the engine computes them: activations in 0..255, weights in -127..127."""
    before, units, exact = np.ones(x.shape[1], np.float32), np.float32(1), True
    for (weight, bias), largest in zip(layers[:-1], ranges, strict=True):
        scaled = weight * (255 / largest)[:, None] * before
        offset = bias * (255 / largest)
        if not exact:  # all layers but the first one
            units = np.maximum(np.abs(scaled).max(axis=1) / 127, np.abs(offset) / 2**23)
            scaled, offset = np.rint(scaled / units[:, None]), np.rint(offset / units)
        x = np.clip(np.rint((x @ scaled.T + offset) * units), 0, 255)
        before, exact = largest / 255, False
    weight, bias = layers[-1]
    return x @ (weight[0] * before) + bias


@pytest.fixture
def calibrated(tmp_path):
    """Write a network with ranges and return it as layers, its file, an event and its inputs there."""

    def write(kind, sizes, *, hits=700, edges=2001, triplets=6500):
        made = network(kind, COLUMNS, **sizes)
        event = made_up_event(COLUMNS, hits=hits, edges=edges, triplets=triplets)
        layers, seen = layers_of(made, kind), first_inputs(made, kind, *event)
        ranges = ranges_of(layers, seen)
        description = {**describe(kind, COLUMNS, **sizes), "ranges": ranges.tolist()}
        write_numbers(tmp_path / "network.onnx", made, description)
        return layers, ranges, seen, tmp_path / "network.onnx", inputs_of(kind, *event)

    return write


@each_variant
@each_size
def test_logits_equal_the_same_arithmetic_in_numpy(variant, kind, sizes, calibrated):
    layers, ranges, seen, path, inputs = calibrated(kind, sizes)
    found = NativeNetwork(path, library(variant), precision="int8")(*inputs, threads=2)
    expected = in_8_bits(layers, ranges, seen)
    scale = np.abs(expected).max()
    # A first layer's float32 sums in another order may round to the next activation.
    difference = np.abs(found - expected)
    assert np.mean(difference > 1e-5 * scale) < 0.01
    assert difference.max() < 0.02 * scale


@each_variant
@each_size
def test_logits_are_near_those_of_float32(variant, kind, sizes, calibrated):
    _, _, _, path, inputs = calibrated(kind, sizes)
    found = NativeNetwork(path, library(variant), precision="int8")(*inputs)
    exact = NativeNetwork(path, library(variant))(*inputs)
    assert 0 < np.abs(found - exact).mean() < 0.01 * np.abs(exact).max()


@each_variant
def test_ranges_change_nothing_in_float32(variant, calibrated):
    _, _, _, path, inputs = calibrated("filter", {"width": 16, "layers": 3})
    with_ranges = NativeNetwork(path, library(variant))(*inputs)
    change(path, lambda described: described.pop("ranges"))
    np.testing.assert_array_equal(NativeNetwork(path, library(variant))(*inputs), with_ranges)


@each_variant
def test_activations_beyond_their_range_stay_at_its_end(variant, calibrated):
    """With ranges a hundred times too small nearly every activation is 0 or the range."""
    layers, ranges, seen, path, inputs = calibrated("filter", {"width": 16, "layers": 2})
    small = ranges / 100
    change(path, lambda described: described.update(ranges=small.tolist()))
    found = NativeNetwork(path, library(variant), precision="int8")(*inputs)
    np.testing.assert_allclose(found, in_8_bits(layers, small, seen), atol=1e-3)


@each_variant
@pytest.mark.parametrize("kind", ["filter", "triplets"])
def test_numbers_that_are_not_finite_stay_in_their_row(variant, kind, calibrated):
    _, _, _, path, (features, *pairs) = calibrated(kind, {"width": 16, "layers": 2})
    native = NativeNetwork(path, library(variant), precision="int8")
    healthy = native(features, *pairs)
    broken = features.copy()
    broken[::7] = np.array([np.nan, np.inf, 3e38], np.float32)
    touched = np.isin(pairs[0], np.arange(0, len(features), 7)).any(axis=0)
    if kind == "triplets":
        touched = touched[np.stack(pairs[1])].any(axis=0)
    found = native(broken, *pairs)
    np.testing.assert_array_equal(found[~touched], healthy[~touched])
    assert touched.any()
    assert not touched.all()


def change(path, changed):
    """Change a network's description in its file."""
    model = onnx.load(path)
    entry = next(e for e in model.metadata_props if e.key == METADATA)
    described = json.loads(entry.value)
    changed(described)
    entry.value = json.dumps(described)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ([[1.0] * 16], r"ranges \[1, 16\], .* positive ones \[2, 16\]"),
        ([[1.0] * 16, [0.0] * 16], "the least 0,"),
        ([[1.0] * 16, [float("nan")] * 16], "the least nan,"),
        ([[1.0] * 16, [1.0] * 8], "no complete"),
        ("large", "no complete"),
        ([[1e39] * 16] * 2, r"the largest 1e\+39;"),
    ],
)
def test_ranges_that_can_not_be_are_declined(calibrated, ranges, complaint):
    _, _, _, path, _ = calibrated("filter", {"width": 16, "layers": 2})
    change(path, lambda described: described.update(ranges=ranges))
    with pytest.raises(UnknownNetworkError, match=complaint):
        NativeNetwork(path, library())
