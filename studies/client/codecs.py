"""Ways to write an event's hits and labels in fewer bytes, to be compared.

Each turns positions float32 ``[N, 3]`` (mm), or labels int64 ``[N]``, into bytes and back. Those of positions
with a step round to it. ``blocks`` is the one that the service has (:mod:`trackserve.contract.compact`).
Where zstandard is installed (``pip install zstandard``) its fastest levels are compared, too.
"""

from __future__ import annotations

import importlib.util
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trackserve.contract import compact

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.event import Float32, Int32, Int64

A = TypeVar("A", bound=NDArray[Any])


@dataclass(frozen=True)
class Codec(Generic[A]):
    """An array to bytes and back; ``step`` (mm) is what positions are rounded to, 0 for not at all."""

    encode: Callable[[A], bytes]
    decode: Callable[[bytes], A]
    step: float = 0.0


def byte_planes(numbers: NDArray[np.integer]) -> bytes:
    """Return integers as all their first bytes, all their second bytes and so on."""
    return np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T).tobytes()


def from_byte_planes(data: bytes) -> Int32:
    """Return int32 numbers from planes of bytes."""
    planes = np.frombuffer(data, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view(np.int32).ravel()


def raw(dtype: type, shape: tuple[int, ...]) -> Codec[Any]:
    """Return what writes an array as it is, in another type if it has one."""
    kind = np.int64 if dtype in {np.int32, np.int16} else dtype
    return Codec(
        lambda array: array.astype(dtype, copy=False).tobytes(),
        lambda data: np.frombuffer(data, dtype).astype(kind, copy=False).reshape(shape),
    )


def deflated(codec: Codec[A], level: int) -> Codec[A]:
    """Return a codec whose bytes are deflated, as gRPC and HTTP compress a message."""
    return Codec(
        lambda array: zlib.compress(codec.encode(array), level),
        lambda data: codec.decode(zlib.decompress(data)),
        codec.step,
    )


def zstandard(codec: Codec[A], level: int) -> Codec[A]:
    """Return a codec whose bytes are compressed by zstandard."""
    import zstandard as zstd  # noqa: PLC0415 - only where it is installed

    press, unpress = zstd.ZstdCompressor(level=level), zstd.ZstdDecompressor()
    return Codec(
        lambda array: press.compress(codec.encode(array)),
        lambda data: codec.decode(unpress.decompress(data)),
        codec.step,
    )


def _rounded(positions: Float32, step: float) -> Int32:
    whole: Int32 = np.rint(positions.astype(np.float64) / step).astype(np.int32)
    return whole


def _positions(whole: Int32, step: float) -> Float32:
    positions: Float32 = (whole * step).astype(np.float32)
    return positions


def fixed_point(step: float) -> Codec[Float32]:
    """Return a codec of three bytes a coordinate, which reach 8 m in steps of 1 um."""

    def encode(positions: Float32) -> bytes:
        whole = _rounded(positions, step).astype("<i4").view(np.uint8).reshape(-1, 4)
        return np.ascontiguousarray(whole[:, :3]).tobytes()

    def decode(data: bytes) -> Float32:
        whole = np.zeros((len(data) // 3, 4), np.uint8)
        whole[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return _positions((whole.view("<i4") >> 8).reshape(-1, 3), step)

    return Codec(encode, decode, step)


def _differences(whole: Int32) -> NDArray[np.uint32]:
    """Return the differences from hit to hit, small numbers for those of either sign, ``[3, N]``."""
    by_axis = np.ascontiguousarray(whole.T)
    signed = np.diff(by_axis, axis=1, prepend=np.zeros((3, 1), np.int32))
    return ((signed << 1) ^ (signed >> 31)).view(np.uint32)


def _summed(folded: NDArray[np.uint32]) -> Int32:
    signed = ((folded >> 1) ^ (0 - (folded & 1))).astype(np.uint32).view(np.int32)
    whole: Int32 = np.cumsum(signed.reshape(3, -1), axis=1, dtype=np.int32).T
    return whole


def deltas(step: float) -> Codec[Float32]:
    """Return a codec of differences from hit to hit, by planes of bytes."""
    return Codec(
        lambda positions: byte_planes(_differences(_rounded(positions, step)).ravel()),
        lambda data: _positions(_summed(from_byte_planes(data).view(np.uint32)), step),
        step,
    )


def varints(step: float) -> Codec[Float32]:
    """Return a codec of differences from hit to hit, seven bits a byte, as protobuf writes integers."""

    def encode(positions: Float32) -> bytes:
        numbers = _differences(_rounded(positions, step)).ravel()
        parts = (numbers[:, None] >> np.arange(0, 35, 7, dtype=np.uint32)) & np.uint32(127)
        size = np.maximum(1, -(-np.frexp(numbers.astype(np.float64))[1] // 7))
        place = np.arange(5)
        parts[place < size[:, None] - 1] |= 128
        return parts.astype(np.uint8)[place < size[:, None]].tobytes()

    def decode(data: bytes) -> Float32:
        parts = np.frombuffer(data, np.uint8)
        begins = np.concatenate([[0], np.flatnonzero(parts < 128)[:-1] + 1])
        size = np.diff(begins, append=len(parts))
        place = np.arange(len(parts)) - np.repeat(begins, size)
        shifted = (parts & 127).astype(np.uint32) << (7 * place).astype(np.uint32)
        return _positions(_summed(np.bitwise_or.reduceat(shifted, begins)), step)

    return Codec(encode, decode, step)


def blocks(step: float) -> Codec[Float32]:
    """Return the codec of the service: distances from the lowest of 32 hits, in as many bits as they need."""

    def encode(positions: Float32) -> bytes:
        data = compact.encode_hits(positions, step)
        return positions.tobytes() if data is None else data.tobytes()

    def decode(data: bytes) -> Float32:
        return compact.decode_hits(np.frombuffer(data, np.uint8))

    return Codec(encode, decode, step)


def run_lengths() -> Codec[Int64]:
    """Return a codec of labels as runs: how long each is, and its label."""

    def encode(labels: Int64) -> bytes:
        begins = np.flatnonzero(np.diff(labels, prepend=-2))
        lengths = np.diff(begins, append=len(labels))
        return np.stack([lengths, labels[begins]]).astype(np.int32).tobytes()

    def decode(data: bytes) -> Int64:
        lengths, labels = np.frombuffer(data, np.int32).reshape(2, -1)
        return np.repeat(labels, lengths).astype(np.int64)

    return Codec(encode, decode)


def flags_and_numbers() -> Codec[Int64]:
    """Return the codec of the service: a bit for each hit, and the numbers of those on a track."""

    def encode(labels: Int64) -> bytes:
        return len(labels).to_bytes(4, "little") + compact.encode_labels(labels).tobytes()

    def decode(data: bytes) -> Int64:
        hits = int.from_bytes(data[:4], "little")
        return compact.decode_labels(np.frombuffer(data, np.uint8, offset=4), hits)

    return Codec(encode, decode)


FLOAT32 = raw(np.float32, (-1, 3))
HITS: dict[str, Codec[Float32]] = {
    "float32": FLOAT32,
    "float32, deflate 1": deflated(FLOAT32, 1),
    "float32, deflate 6": deflated(FLOAT32, 6),
    "int24, 1 um": fixed_point(0.001),
    "int24, 20 um, deflate 1": deflated(fixed_point(0.02), 1),
    "differences, 1 um, deflate 1": deflated(deltas(0.001), 1),
    "differences, 10 um, deflate 1": deflated(deltas(0.01), 1),
    "differences, 20 um, deflate 1": deflated(deltas(0.02), 1),
    "differences, 20 um, varints": varints(0.02),
    "blocks, 1 um": blocks(0.001),
    "blocks, 5 um": blocks(0.005),
    "blocks, 10 um": blocks(0.01),
    "blocks, 20 um": blocks(0.02),
    "blocks, 50 um": blocks(0.05),
    "blocks, 100 um": blocks(0.1),
}
LABELS: dict[str, Codec[Int64]] = {
    "int64": raw(np.int64, (-1,)),
    "int64, deflate 1": deflated(raw(np.int64, (-1,)), 1),
    "int32": raw(np.int32, (-1,)),
    "int32, deflate 1": deflated(raw(np.int32, (-1,)), 1),
    "run lengths": run_lengths(),
    "flags and uint16": flags_and_numbers(),
    "flags and uint16, deflate 1": deflated(flags_and_numbers(), 1),
}
if importlib.util.find_spec("zstandard"):
    HITS |= {
        "float32, zstd 1": zstandard(FLOAT32, 1),
        "differences, 20 um, zstd 1": zstandard(deltas(0.02), 1),
        "blocks, 20 um, zstd 1": zstandard(blocks(0.02), 1),
    }
    LABELS |= {"int64, zstd 1": zstandard(raw(np.int64, (-1,)), 1)}
