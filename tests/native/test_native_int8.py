"""8 bits: equal to the same arithmetic in numpy, near float32, and offered where they are fast."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from known_networks import COLUMNS, describe, inputs_of, made_up_event, network, write_numbers
from test_native_engine import bundle as bundle  # a fixture

from tiny_bundle import straight_tracks
from trackserve.native.engine import NativePipeline
from trackserve.native.library import Library, library, variants
from trackserve.native.networks import NativeNetwork, UnknownNetworkError
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.networks import METADATA
from trackserve.training.calibrate import write_ranges

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
        ([[1.0] * 16], r"ranges \[1, 16\] from 1 on; .* positive ones \[2, 16\]"),
        ([[1.0] * 16, [0.0] * 16], "from 0 on"),
        ([[1.0] * 16, [float("nan")] * 16], "from nan on"),
        ([[1.0] * 16, [1.0] * 8], "no complete"),
        ("large", "no complete"),
        ([[1e39] * 16] * 2, "from inf on"),
    ],
)
def test_ranges_that_can_not_be_are_declined(calibrated, ranges, complaint):
    _, _, _, path, _ = calibrated("filter", {"width": 16, "layers": 2})
    change(path, lambda described: described.update(ranges=ranges))
    with pytest.raises(UnknownNetworkError, match=complaint):
        NativeNetwork(path, library())


# ---- in the pipeline


@pytest.fixture
def everywhere(monkeypatch):
    """Let variants offer 8 bits that can compute them only slowly."""
    monkeypatch.setattr(Library, "precisions", lambda _: ("float32", "int8"))


@pytest.fixture
def with_ranges(bundle, tmp_path):
    """The engine tests' bundle, calibrated on made-up tracks."""
    shutil.copytree(bundle.path, tmp_path / "calibrated")
    copy = replace(bundle, path=tmp_path / "calibrated")
    found = NativePipeline(bundle).run(hit_features(straight_tracks(tracks=100), bundle.features))
    features, edges = found.scored.features, found.filtered.edges
    write_ranges(copy.filter_path, [(features, found.candidates.edges)])
    first, second = np.nonzero(edges[1][:, None] == edges[0])
    write_ranges(copy.triplets_path, [(features, edges, np.stack([first, second]))])
    return copy


@each_variant
@pytest.mark.usefixtures("everywhere")
def test_a_pipeline_in_8_bits_finds_nearly_the_same(with_ranges, variant):
    hits = straight_tracks(tracks=150, noise=200)
    features = hit_features(hits, with_ranges.features)
    exact = NativePipeline(with_ranges, variant=variant).run(features)
    pipeline = NativePipeline(with_ranges, precision="int8", variant=variant, threads=2)
    assert (pipeline.precision, pipeline.notes) == ("int8", [])
    found = pipeline.run(features)
    np.testing.assert_array_equal(found.candidates.edges, exact.candidates.edges)
    for name in ("filtered", "joined"):
        ours, theirs = (
            set(map(tuple, getattr(each, name).edges.T.tolist())) for each in (found, exact)
        )
        assert 0 < len(ours ^ theirs) < 0.1 * len(theirs)


@each_variant
def test_triplets_are_found_by_the_logits_that_the_network_gives(with_ranges, variant):
    features = hit_features(straight_tracks(tracks=60), with_ranges.features)
    native = NativeNetwork(with_ranges.triplets_path, library(variant), precision="int8")
    hits = len(features) - 3
    inner = np.repeat(np.arange(hits, dtype=np.int32), 3)
    outer = inner + np.tile(np.arange(1, 4, dtype=np.int32), hits)
    position = tuple(np.ascontiguousarray(column) for column in features.T)
    cuts, order = (np.inf, 0.0, np.inf, 0.0), (inner, outer)
    triplets = library(variant).join_edges(position, order, cuts=cuts, threads=1)
    logits = native(features, order, triplets)
    least = float(np.median(logits))
    found = native.find_triplets(features, order, position, cuts=cuts, threshold=least)
    kept = logits >= least
    expected = set(zip(triplets[0][kept].tolist(), triplets[1][kept].tolist(), strict=True))
    assert set(zip(*(rows.tolist() for rows in found), strict=True)) == expected


@pytest.mark.usefixtures("everywhere")
def test_networks_without_ranges_are_computed_in_the_best_other_precision(bundle):
    pipeline = NativePipeline(bundle, precision="int8")
    assert len(pipeline.notes) == 2
    assert pipeline.notes[0] == (
        "filter.onnx has no ranges for int8 and is computed in float32; "
        "`trackserve calibrate` writes them"
    )
    features = hit_features(straight_tracks(tracks=50, noise=50), bundle.features)
    labels = NativePipeline(bundle, precision="float32").run(features).labels()
    np.testing.assert_array_equal(pipeline.run(features).labels(), labels)


@each_variant
def test_8_bits_are_offered_where_the_processor_multiplies_them(variant, with_ranges):
    fast = variant in {"avx512vnni", "avx512bf16"}
    assert ("int8" in library(variant).precisions()) == fast
    pipeline = NativePipeline(with_ranges, precision="int8", variant=variant)
    note = f"int8 is computed in float32 by the engine's {variant} variant"
    assert pipeline.notes == ([] if fast else [note])
    assert pipeline.precision == ("int8" if fast else "float32")
