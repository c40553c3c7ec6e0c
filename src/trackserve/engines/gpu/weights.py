"""The networks' trained numbers on the device, as the kernels take them.

A layer's weights are transposed, ``[inputs, W]``, and padded with zeros to W, the next power of two of
its width: a padded column stays zero through every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor

from trackserve.engines.native.networks import Family, read_family
from trackserve.errors import BundleError
from trackserve.pipeline.networks import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trackserve.event import Float32

NUMBERS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What states and the weights of hidden layers are kept as; sums are float32."""
DOT = {"cuda": "tf32x3", "hip": "ieee", "interpreter": "widened"}
"""How float32 is multiplied: on NVIDIA in three TF32 products, which lose no more than rounding does."""

PERCEPTRON = ("first", "first_bias", "hidden", "hidden_bias", "last", "last_bias")


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the family: ``layers`` by name, of ``width`` columns in ``wide``."""

    family: Family
    wide: int
    dot: str
    layers: dict[str, Tensor] = field(repr=False)

    @property
    def further(self) -> int:
        """Number of features beyond r, phi, z."""
        return len(self.family.further())

    @property
    def perceptron(self) -> tuple[Tensor, ...]:
        """What the kernels of embedding, filter and triplet classifier take, in their order."""
        return tuple(self.layers[name] for name in PERCEPTRON)

    def __getitem__(self, name: str) -> Tensor:
        return self.layers[name]


def power_of_two(width: int) -> int:
    """Return the least power of two that is at least ``width`` and 16, the least of a matrix product."""
    return max(16, 1 << (width - 1).bit_length())


class _Reader:
    """Takes trained numbers in the order in which a family lists them."""

    def __init__(self, tensors: list[Float32], wide: int, number: torch.dtype, device: str) -> None:
        self._next: Iterator[Float32] = iter(tensors)
        self._wide, self._number, self._device = wide, number, device

    def take(self) -> Tensor:
        """Return the next numbers as they are."""
        return torch.tensor(next(self._next))

    def matrix(self, outputs: int = 0) -> Tensor:
        """Return the next weights for a matrix product ``[W, outputs or W]``."""
        return self.put(self.padded(self.take().T, self._wide, outputs or self._wide), exact=False)

    def inputs(self, *parts: Tensor) -> Tensor:
        """Return weights of a first layer, ``[outputs, inputs]`` side by side, as ``[inputs, W]``."""
        weight = torch.cat(parts, dim=1).T
        return self.put(self.padded(weight, len(weight), self._wide))

    def vector(self, length: int = 0) -> Tensor:
        """Return the next numbers, a bias, as ``[length or W]``."""
        values = self.take().reshape(1, -1)
        return self.put(self.padded(values, 1, length or self._wide)[0])

    def put(self, values: Tensor, *, exact: bool = True) -> Tensor:
        """Return numbers on the device, in the network's number unless ``exact``."""
        number = torch.float32 if exact else self._number
        return values.contiguous().to(self._device, number)

    @staticmethod
    def padded(values: Tensor, rows: int, columns: int) -> Tensor:
        """Return a matrix with zeros below and to the right."""
        result = torch.zeros(rows, columns)
        result[: values.shape[0], : values.shape[1]] = values
        return result


def read_network(path: Path, *, precision: str, device: str, backend: str) -> Network:
    """Return a network with its numbers on the device.

    Raises :class:`UnknownNetworkError` for a file that holds another network than the family's.
    """
    try:
        model = onnx.load(path)
    except Exception as error:
        message = f"{path} is not a valid ONNX network: {first_line(error)}"
        raise BundleError(message) from None
    family = read_family(model)
    wide = power_of_two(family.width)
    reader = _Reader(family.tensors(model), wide, NUMBERS[precision], device)
    layers = _gnn(reader, family) if family.kind == "gnn" else _perceptron(reader, family, wide)
    return Network(family, wide, DOT[backend], layers)


def _perceptron(reader: _Reader, family: Family, wide: int) -> dict[str, Tensor]:
    weight, bias = reader.take(), reader.vector()
    parts = [weight] if family.kind != "filter" else [weight, reader.take(), reader.take()]
    layers = {"first": reader.inputs(*parts), "first_bias": bias}
    hidden = [(reader.matrix(), reader.vector()) for _ in range(family.depth - 1)]
    none = reader.put(torch.zeros(0, wide, wide), exact=False), reader.put(torch.zeros(0, wide))
    layers["hidden"] = torch.stack([w for w, _ in hidden]) if hidden else none[0]
    layers["hidden_bias"] = torch.stack([b for _, b in hidden]) if hidden else none[1]
    outputs = power_of_two(family.dimension) if family.kind == "embedding" else 1
    layers["last"] = reader.matrix(outputs)
    layers["last_bias"] = reader.vector(outputs)
    return layers


def _gnn(reader: _Reader, family: Family) -> dict[str, Tensor]:
    layers = {}
    for name in ("edge", "triplet"):
        layers[f"{name}_first"] = reader.inputs(reader.take())
        layers[f"{name}_first_bias"] = reader.vector()
        layers[f"{name}_last"], layers[f"{name}_last_bias"] = reader.matrix(), reader.vector()
    for step in range(family.depth):
        own, inside, outside = torch.split(reader.take(), family.width, dim=1)
        for name, part in (("own", own), ("inside", inside), ("outside", outside)):
            square = reader.padded(part.T, *[power_of_two(family.width)] * 2)
            layers[f"{step}_node_{name}"] = reader.put(square, exact=False)
        for name in ("bias", "gain", "offset"):
            layers[f"{step}_node_{name}"] = reader.vector()
        layers[f"{step}_node_last"] = reader.matrix()
        layers[f"{step}_node_last_bias"] = reader.vector()
        if step + 1 == family.depth:
            break
        layers[f"{step}_link_own"], layers[f"{step}_link_bias"] = reader.matrix(), reader.vector()
        layers[f"{step}_link_first"] = reader.matrix()
        layers[f"{step}_link_second"] = reader.matrix()
        layers[f"{step}_link_gain"], layers[f"{step}_link_offset"] = (
            reader.vector(),
            reader.vector(),
        )
        layers[f"{step}_link_last"] = reader.matrix()
        layers[f"{step}_link_last_bias"] = reader.vector()
    layers["score"], layers["score_bias"] = reader.matrix(), reader.vector()
    layers["score_last"], layers["score_last_bias"] = reader.matrix(1), reader.vector(1)
    return layers
