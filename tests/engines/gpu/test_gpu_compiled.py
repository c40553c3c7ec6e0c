"""Kernels compiled ahead of time, for devices that are not here."""

from __future__ import annotations

import json

import onnx
import pytest

pytest.importorskip("triton")

from studies.gpu.kernels import RESULT, code_digest, compiled
from trackserve.bundle import read_bundle
from trackserve.engines.gpu.compiled import configurations
from trackserve.engines.gpu.weights import power_of_two
from trackserve.engines.native.networks import read_family

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


def test_kernels_compile_without_a_device_and_nothing_spills():
    """One that is quick to compile, for a device of each kind; the study compiles all for all."""
    where = ("sm_90", "gfx942")
    found = compiled("--targets", *where, "--precisions", "bfloat16", "--kernels", "gnn: links")
    assert [(each["kernel"], each["target"]) for each in found] == [
        ("gnn: links", target) for target in where
    ]
    for each in found:
        assert each["registers"] > 16
        assert each["spilled"] == 0
        assert each["occupancy"] > 0


def test_every_kernel_was_compiled_for_every_device_as_it_is_now():
    """What the study found is of these kernels, and nothing spills."""
    record = json.loads(RESULT.read_text())
    assert record["code"] == code_digest(), "run: python -m studies.gpu kernels"
    names = [each.name for each in configurations()]
    wanted = {(n, t, p) for n in names for t in TARGETS for p in ("float32", "bfloat16")}
    assert {(row["kernel"], row["target"], row["precision"]) for row in record["kernels"]} == wanted
    assert record["spilled"] == [] == [row for row in record["kernels"] if row["spilled"]]


def test_the_sizes_are_those_of_the_shipped_networks():
    bundle = read_bundle()
    sizes = {each.name: each.sizes for each in configurations()}
    at = {"embedding": "embedding", "filter": "filter", "triplets": "triplets: network"}
    for name, kernel in at.items():
        family = read_family(onnx.load(bundle.path / f"{name}.onnx"))
        assert sizes[kernel]["W"] == power_of_two(family.width)
        assert sizes[kernel]["LAYERS"] == family.depth - 1
        assert sizes[kernel]["FURTHER"] == len(family.further())
    family = read_family(onnx.load(bundle.path / "gnn.onnx"))
    assert sizes["gnn: nodes"]["WIDTH"] == family.width
    assert sizes["embedding"]["D"] == bundle.embedding_dimension
