"""Networks of the known family, read from ONNX files for the native engine."""

from __future__ import annotations

import ctypes
import json
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from trackserve.contract.description import PRECISIONS
from trackserve.engines.native.abi import KINDS, Description
from trackserve.pipeline.networks import METADATA

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.engines.native.abi import EventBudget
    from trackserve.engines.native.library import Library, Pairs
    from trackserve.event import Float32, Float64

METRE = 1000.0
WIDTHS = range(16, 129, 16)
MAX_INPUTS = 64
CALIBRATED = ("filter", "triplets")
"""Kinds of networks that can be computed in 8 bits, with the ranges of their hidden layers."""


class UnknownNetworkError(Exception):
    """A network that the native engine can't run; the message has the reason."""


@dataclass(frozen=True)
class Family:
    """What a network of the family is made of, from the description in its file."""

    kind: str
    width: int
    depth: int
    dimension: int
    columns: tuple[str, ...]
    scales: tuple[float, ...]
    ranges: Float64 | None = None  # [depth, width], of a network that was calibrated for 8 bits

    def further(self) -> list[int]:
        """Return the columns beyond r, phi, z."""
        return [i for i, name in enumerate(self.columns) if name not in {"r", "phi", "z"}]

    def tensors(self, model: onnx.ModelProto) -> list[Float32]:
        """Return the trained numbers in the order in which the library takes them."""
        held = {t.name: t for t in model.graph.initializer}
        # Equal tensors are kept once, so a normalisation's are found through its node.
        normalisations = iter(
            name
            for node in model.graph.node
            if node.op_type == "LayerNormalization"
            for name in node.input[1:3]
        )
        if self.kind == "gnn" and "encode_triplet.0.weight" not in held:
            message = "it takes no triplets; the native engine has GNNs on triplets only"
            raise UnknownNetworkError(message)
        found = []
        for name, shape in self._expected():
            source = next(normalisations, "") if name == "normalisation" else name
            if source not in held or tuple(held[source].dims) != shape:
                has = f"{list(held[source].dims)}" if source in held else "no such tensor"
                message = f"{name} should be {list(shape)}; there is {has}"
                raise UnknownNetworkError(message)
            found.append(np.ascontiguousarray(numpy_helper.to_array(held[source]), np.float32))
        return found

    def _expected(self) -> list[tuple[str, tuple[int, ...]]]:
        """List the tensors' names and shapes as training/networks.py makes them."""
        w, hit = self.width, 3 + len(self.further())

        def linear(name: str, inputs: int, outputs: int) -> list[tuple[str, tuple[int, ...]]]:
            return [(f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,))]

        def pair_layer(name: str, pair: int, hit: int) -> list[tuple[str, tuple[int, ...]]]:
            ends = [(f"{name}.{end}.weight", (w, hit)) for end in ("inner", "outer")]
            return linear(f"{name}.pair", pair, w) + ends

        def normalisation() -> list[tuple[str, tuple[int, ...]]]:
            return [("normalisation", (w,))] * 2

        if self.kind == "embedding":
            names = [f"network.{2 * i}" for i in range(self.depth + 1)]
            tensors = linear(names[0], 4 + hit, w)
            for name in names[1:-1]:
                tensors += linear(name, w, w)
            return tensors + linear(names[-1], w, self.dimension)
        if self.kind == "filter":
            names = [f"rest.1.{2 * i}" for i in range(self.depth)]
            tensors = pair_layer("first", 7, hit)
            for name in names[:-1]:
                tensors += linear(name, w, w)
            return tensors + linear(names[-1], w, 1)
        edge, triplet = 7 + 2 * hit, 9 + 2 * 7 + 3 * hit
        if self.kind == "triplets":
            names = [f"network.{2 * i}" for i in range(self.depth + 1)]
            tensors = linear(names[0], triplet, w)
            for name in names[1:-1]:
                tensors += linear(name, w, w)
            return tensors + linear(names[-1], w, 1)
        tensors = linear("encode_edge.0", edge, w) + linear("encode_edge.2", w, w)
        tensors += linear("encode_triplet.0", triplet, w) + linear("encode_triplet.2", w, w)
        for i in range(self.depth):
            tensors += linear(f"steps.{i}.node.0", 3 * w, w) + normalisation()
            tensors += linear(f"steps.{i}.node.3", w, w)
            if i + 1 < self.depth:  # the scores need no links after the last step
                tensors += pair_layer(f"steps.{i}.link", w, w) + normalisation()
                tensors += linear(f"steps.{i}.link_rest.2", w, w)
        return tensors + linear("score.0", w, w) + linear("score.2", w, 1)


def read_family(model: onnx.ModelProto) -> Family:
    """Return the kind of a network from its metadata.

    Raises :class:`UnknownNetworkError` where it is none of the family, or too large.
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA not in entries:
        message = f"its metadata has no {METADATA!r}, as `trackserve train` writes it"
        raise UnknownNetworkError(message)
    try:
        given = json.loads(entries[METADATA])
        family = Family(
            kind=str(given["kind"]),
            width=int(given["width"]),
            depth=int(given["steps"] if given["kind"] == "gnn" else given["layers"]),
            dimension=int(given.get("dimension", 1)),
            columns=tuple(map(str, given["columns"])),
            scales=tuple(map(float, given["scales"])),
            ranges=np.array(given["ranges"], np.float64) if "ranges" in given else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"its metadata has no complete {METADATA!r} ({type(error).__name__}: {error})"
        raise UnknownNetworkError(message) from None
    if family.kind not in KINDS or not {"r", "phi", "z"} <= set(family.columns):
        message = f"it is a {family.kind!r} on {', '.join(family.columns)}; expected one of {', '.join(KINDS)} on r, phi, z and others"
        raise UnknownNetworkError(message)
    inputs = 13 + 2 * len(family.further())
    if (
        family.width not in WIDTHS
        or family.depth < 1
        or not 1 <= family.dimension <= WIDTHS[-1]
        or inputs > MAX_INPUTS
    ):
        message = (
            f"it has width {family.width}, depth {family.depth}, dimension {family.dimension} and "
            f"{inputs} inputs; expected a multiple of 16 up to {WIDTHS[-1]}, at least 1, at most "
            f"{WIDTHS[-1]} and at most {MAX_INPUTS}"
        )
        raise UnknownNetworkError(message)
    _check_ranges(family)
    return family


def _check_ranges(family: Family) -> None:
    if (ranges := family.ranges) is None:
        return
    shape = (family.depth, family.width)
    usable = ranges.shape == shape and bool(((ranges > 1e-30) & (ranges < 1e30)).all())
    if family.kind not in CALIBRATED or not usable:
        message = (
            f"it is a {family.kind!r} with ranges {list(ranges.shape)}, the least "
            f"{ranges.min(initial=np.inf):g}, the largest {ranges.max(initial=0):g}; expected "
            f"{' or '.join(CALIBRATED)} with positive ones {list(shape)}"
        )
        raise UnknownNetworkError(message)


class NativeNetwork:
    """A network of the family, ready to run.

    ``int8`` is for networks with ranges. Raises :class:`UnknownNetworkError` for a file that holds
    another network.
    """

    def __init__(self, path: Path, library: Library, *, precision: str = "float32") -> None:
        model = onnx.load(path)
        self.family = read_family(model)
        assert precision != "int8" or self.family.ranges is not None, "no ranges for int8"
        self._library = library
        tensors = self.family.tensors(model)
        self.handle = library.make_network(_description(self.family, tensors, precision))
        weakref.finalize(self, library.free_network, self.handle)

    def __call__(
        self,
        features: Float32,
        edges: Pairs | None = None,
        triplets: Pairs | None = None,
        *,
        threads: int = 1,
    ) -> Float32:
        """Return the output: ``[N, D]`` from features, a logit for each edge or triplet."""
        scored = triplets if self.family.kind == "triplets" else edges
        shape = (len(features), self.family.dimension) if scored is None else (len(scored[0]),)
        return self._library.run_network(
            self.handle, features, edges, triplets, shape=shape, threads=threads
        )

    def find_triplets(
        self,
        features: Float32,
        edges: Pairs,
        position: tuple[Float32, Float32, Float32],
        *,
        cuts: Sequence[float],
        threshold: float,
        budget: EventBudget | None = None,
        threads: int = 1,
    ) -> Pairs:
        """Return the triplets that the cuts and this network, one on triplets, leave."""
        return self._library.find_triplets(
            self.handle,
            features,
            edges,
            position,
            cuts=cuts,
            threshold=threshold,
            budget=budget,
            threads=threads,
        )


def _description(family: Family, tensors: list[Float32], precision: str) -> Description:
    further = family.further()
    at = {name: family.columns.index(name) for name in ("r", "phi", "z")}
    unit = {"r": METRE, "phi": 1.0, "z": METRE}
    scale: dict[str, Any] = {f"{n}_scale": family.scales[i] / unit[n] for n, i in at.items()}
    return Description(
        kind=KINDS.index(family.kind),
        precision=PRECISIONS.index(precision),
        width=family.width,
        depth=family.depth,
        dimension=family.dimension,
        features=len(family.columns),
        further=len(further),
        further_columns=(ctypes.c_int32 * len(further))(*further),
        ranges=None if family.ranges is None else _floats(family.ranges),
        tensors=(ctypes.c_void_p * len(tensors))(*(t.ctypes.data for t in tensors)),
        **at,
        **scale,
    )


def _floats(values: Float64) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * values.size)(*values.ravel())
