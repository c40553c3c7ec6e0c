"""Ways to write an event's hits and labels in fewer bytes, offline: size, processor time, loss.

Each codec turns positions float32 ``[N, 3]`` (mm) into bytes and back; what comes back is what the
network would see. Fixed-point codecs round to a step; `delta` codecs write differences between hits that
follow each other in the event (which ACTS and TrackML list module by module), by planes of bytes, and
deflate them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trackserve.event import Float32, Int32, Int64


@dataclass(frozen=True)
class HitCodec:
    """Positions to bytes and back; ``step`` (mm) is the rounding, 0 for none."""

    encode: Callable[[Float32], bytes]
    decode: Callable[[bytes], Float32]
    step: float = 0.0


@dataclass(frozen=True)
class LabelCodec:
    """Labels int64 ``[N]`` to bytes and back."""

    encode: Callable[[Int64], bytes]
    decode: Callable[[bytes], Int64]


def byte_planes(numbers: NDArray[np.integer]) -> bytes:
    """Return integers as all their first bytes, all their second bytes and so on."""
    return np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T).tobytes()


def from_byte_planes(data: bytes, size: int = 4) -> Int32:
    """Return int32 numbers from planes of ``size`` bytes."""
    planes = np.frombuffer(data, np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(np.int32).ravel()


def _folded(numbers: Int32) -> Int32:
    """Return small non-negative numbers for small numbers of either sign (zigzag)."""
    folded: Int32 = (numbers << 1) ^ (numbers >> 31)
    return folded


def _unfolded(numbers: Int32) -> Int32:
    unsigned = numbers.view(np.uint32)
    return ((unsigned >> 1) ^ (0 - (unsigned & 1))).astype(np.uint32).view(np.int32)


def _rounded(positions: Float32, step: float) -> Int32:
    whole: Int32 = np.rint(positions.astype(np.float64) / step).astype(np.int32)
    return whole


def _positions(whole: Int32, step: float) -> Float32:
    positions: Float32 = (whole * step).astype(np.float32)
    return positions


def fixed_point(step: float) -> HitCodec:
    """Return a codec of three bytes a coordinate, which reach 8 m in steps of 1 micrometre."""

    def encode(positions: Float32) -> bytes:
        return (
            _rounded(positions, step).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        )

    def decode(data: bytes) -> Float32:
        bytes_ = np.frombuffer(data, np.uint8).reshape(-1, 3)
        whole = np.zeros((len(bytes_), 4), np.uint8)
        whole[:, 1:] = bytes_
        return _positions((whole.view("<i4") >> 8).reshape(-1, 3), step)

    return HitCodec(encode, decode, step)


def delta(step: float, level: int = 1) -> HitCodec:
    """Return a codec of fixed point and differences from hit to hit, deflated."""

    def encode(positions: Float32) -> bytes:
        whole = _rounded(positions, step)
        differences = np.diff(whole, axis=0, prepend=np.zeros((1, 3), np.int32))
        return zlib.compress(byte_planes(_folded(np.ascontiguousarray(differences.T))), level)

    def decode(data: bytes) -> Float32:
        differences = _unfolded(from_byte_planes(zlib.decompress(data))).reshape(3, -1).T
        return _positions(np.cumsum(differences, axis=0, dtype=np.int32), step)

    return HitCodec(encode, decode, step)


def deflated(level: int) -> HitCodec:
    """Float32 deflated as it is: what gRPC's own compression does."""
    return HitCodec(
        lambda positions: zlib.compress(positions.tobytes(), level),
        lambda data: np.frombuffer(zlib.decompress(data), np.float32).reshape(-1, 3),
    )


HITS = {
    "float32": HitCodec(
        lambda positions: positions.tobytes(),
        lambda data: np.frombuffer(data, np.float32).reshape(-1, 3),
    ),
    "float32, deflate 1": deflated(1),
    "fixed point 1 um": fixed_point(0.001),
    "delta 1 um, deflate 1": delta(0.001),
    "delta 5 um, deflate 1": delta(0.005),
    "delta 10 um, deflate 1": delta(0.01),
    "delta 20 um, deflate 1": delta(0.02),
    "delta 50 um, deflate 1": delta(0.05),
}
LABELS = {
    "int64": LabelCodec(lambda v: v.tobytes(), lambda data: np.frombuffer(data, np.int64)),
    "int64, deflate 1": LabelCodec(
        lambda v: zlib.compress(v.tobytes(), 1),
        lambda data: np.frombuffer(zlib.decompress(data), np.int64),
    ),
    "int32": LabelCodec(
        lambda v: v.astype(np.int32).tobytes(),
        lambda data: np.frombuffer(data, np.int32).astype(np.int64),
    ),
    "int32, byte planes, deflate 1": LabelCodec(
        lambda v: zlib.compress(byte_planes((v + 1).astype(np.int32)), 1),
        lambda data: from_byte_planes(zlib.decompress(data)).astype(np.int64) - 1,
    ),
    "int32, deflate 1": LabelCodec(
        lambda v: zlib.compress(v.astype(np.int32).tobytes(), 1),
        lambda data: np.frombuffer(zlib.decompress(data), np.int32).astype(np.int64),
    ),
}
