"""Hits and labels in fewer bytes: what a client may send and ask for instead of HITS and LABELS.

Positions are rounded to whole steps (10 um unless the client chooses otherwise: the rounding adds 3 um to
the 14 um of a pixel of 50 um). The hits of an event come module by module, so those that follow each
other are near each other: for each block of 32 hits the lowest x, y and z are written once, and of each
hit the distances from them, in the bits that the block's largest ones need. What HITS_COMPACT holds,
little-endian:

    bytes               what
    1, 1, 2             version (1), columns C, hits of a block (32)
    4, 8                hits N; the step, float64, mm
    9 x B               int24: the lowest x of each of the B blocks, then y, then z, in steps
    3 x B               uint8: the bits of a distance in x, of each block, then in y, then in z
    16 x D a block      the hits k and k + 16 of a block side by side in D bytes: the distance in x in
                        the lowest bits, then y, then z, filled up to D half-bytes a hit; blocks with
                        a smaller D come first, and those with the same D in their order
    4 x N x (C - 3)     float32: the columns beyond x, y, z, one after the other

The last block is filled up with its last hit. LABELS_COMPACT holds a bit for each hit, set if it is on a
track (the first hit has the highest bit of the first byte), and then the number of the track for each
hit that is on one: uint16 if all tracks' numbers fit, else uint32.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackserve.errors import InputError
from trackserve.event import NO_TRACK, Float32, Int64

if TYPE_CHECKING:
    from collections.abc import Iterator

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

STEP = 0.01
"""What positions are rounded to (mm) unless the client chooses otherwise."""
BLOCK = 32
VERSION = 1
HEAD = struct.Struct("<BBHId")
_PAIRS = BLOCK // 2
_REACH = 2.0**23
_WORD_BITS = 64
LONGEST_STEP = 1000.0
"""The longest step, mm."""
_FLOAT32_STEP = 2.0**-7
"""Steps from this one (mm) up are worked out in float32: a metre is at most 2**17 of them."""


def encode_hits(table: Float32, step: float = STEP) -> Bytes | None:
    """Return HITS_COMPACT of hits ``[N, C]``, rounded to ``step`` (mm).

    Returns None for hits that this form has no room for, which then go as they are: positions that aren't
    finite or lie beyond 2**23 steps (84 m at 10 um), and neighbours so far apart in such small steps
    that the three distances need more than 64 bits.
    """
    hits, columns = table.shape
    head = HEAD.pack(VERSION, columns, BLOCK, hits, step)
    if not hits:
        return np.frombuffer(head, np.uint8)
    blocks = -(-hits // BLOCK)
    kind = np.float32 if step >= _FLOAT32_STEP else np.float64
    scaled = np.empty((3, blocks * BLOCK), kind)
    np.multiply(table[:, :3].T, kind(1 / step), out=scaled[:, :hits], dtype=kind)
    scaled[:, hits:] = scaled[:, hits - 1 : hits]
    by_place = scaled.reshape(3, blocks, BLOCK).transpose(0, 2, 1).copy()
    np.rint(by_place, out=by_place)
    lowest, highest = by_place.min(axis=1), by_place.max(axis=1)
    if not (lowest.min() >= -_REACH and highest.max() < _REACH):  # so that NaN is none of ours
        return None
    bits = np.frexp(highest - lowest)[1].astype(np.uint8)
    if bits.sum(axis=0).max() > _WORD_BITS:
        return None
    np.subtract(by_place, lowest[:, None], out=by_place)
    parts = [
        np.frombuffer(head, np.uint8),
        _bytes_of(lowest.astype("<i4"))[..., :3],
        bits,
        *_packed(by_place, bits),
        _bytes_of(table[:, 3:].T),
    ]
    data: Bytes = np.concatenate([part.ravel() for part in parts])
    return data


def hits_in(data: Bytes) -> tuple[int, int]:
    """Return the numbers of hits and columns that HITS_COMPACT states, before any of it is unpacked.

    Raises :class:`InputError` for another version or form, and for fewer bytes than any such event has.
    """
    if len(data) < HEAD.size:
        message = f"the compact hits have {len(data)} bytes; expected at least {HEAD.size}"
        raise InputError(message)
    version, columns, block, hits, step = HEAD.unpack(data[: HEAD.size].tobytes())
    if (version, block) != (VERSION, BLOCK):
        message = (
            f"the compact hits are of version {version} with {block} hits a block; "
            f"expected version {VERSION} with {BLOCK}"
        )
        raise InputError(message)
    if columns < 3 or not 0 < step <= LONGEST_STEP:
        message = (
            f"the compact hits have {columns} columns in steps of {step:g} mm; expected at least "
            "x, y, z, and a step above 0, of a metre at most"
        )
        raise InputError(message)
    least = HEAD.size + 12 * -(-hits // BLOCK) + 4 * hits * (columns - 3)
    if len(data) < least:
        message = f"the compact hits have {len(data):,} bytes for {hits:,} hits; expected at least {least:,}"
        raise InputError(message)
    return hits, columns


def decode_hits(data: Bytes) -> Float32:
    """Return the hits ``[N, C]`` of HITS_COMPACT; raises :class:`InputError` for bytes that are none."""
    hits, columns = hits_in(data)
    table = np.empty((hits, columns), np.float32)
    if not hits and len(data) == HEAD.size:
        return table
    step = HEAD.unpack(data[: HEAD.size].tobytes())[-1]
    blocks = -(-hits // BLOCK)
    middle, begin = HEAD.size + 9 * blocks, HEAD.size + 12 * blocks
    bits = data[middle:begin].reshape(3, blocks)
    total = bits.sum(axis=0, dtype=np.int64)
    if total.max(initial=0) > _WORD_BITS:
        message = (
            f"the compact hits need {total.max()} bits for a hit; expected at most {_WORD_BITS}"
        )
        raise InputError(message)
    end = begin + _PAIRS * int(_half_bytes(bits).sum())
    if len(data) != end + 4 * hits * (columns - 3):
        message = (
            f"the compact hits have {len(data):,} bytes; expected "
            f"{end + 4 * hits * (columns - 3):,} for these {hits:,} hits"
        )
        raise InputError(message)
    int24 = np.zeros((3, blocks, 4), np.uint8)
    int24[..., 1:] = data[HEAD.size : middle].reshape(3, blocks, 3)
    lowest = (int24.view("<i4")[..., 0] >> 8).astype(np.float64)
    words = _unpacked(data[begin:end], bits)
    for axis in range(3):
        place = words & _mask(bits[axis])[:, None]
        words >>= bits[axis].astype(np.uint64)[:, None]
        position = place.astype(np.float64)
        position += lowest[axis, :, None]
        position *= step
        table[:, axis] = position.ravel()[:hits]
    table[:, 3:] = data[end:].view("<f4").reshape(columns - 3, hits).T
    return table


def encode_labels(labels: Int64) -> Bytes:
    """Return LABELS_COMPACT of labels ``[N]``."""
    on_track = labels != NO_TRACK
    numbers = labels[on_track]
    small = numbers.max(initial=0) < 2**16
    return np.concatenate(
        [np.packbits(on_track), _bytes_of(numbers.astype("<u2" if small else "<u4")).ravel()]
    )


def decode_labels(data: Bytes, hits: int) -> Int64:
    """Return the labels ``[N]`` of LABELS_COMPACT; raises :class:`InputError` for bytes that are none."""
    flags = -(-hits // 8)
    on_track = (
        np.unpackbits(data[:flags], count=hits).view(np.bool_) if hits <= 8 * len(data) else None
    )
    found = 0 if on_track is None else np.count_nonzero(on_track)
    size, rest = divmod(len(data) - flags, found) if found else (2, len(data) - flags)
    if on_track is None or rest or size not in {2, 4}:
        message = f"{len(data):,} bytes are not the compact labels of {hits:,} hits"
        raise InputError(message)
    labels = np.full(hits, NO_TRACK, np.int64)
    labels[on_track] = data[flags:].view(f"<u{size}")
    return labels


def _packed(by_place: NDArray[Any], bits: Bytes) -> Iterator[Bytes]:
    """Yield the distances ``[3, 32, B]`` of all blocks, those with the same number of half-bytes together."""
    word = by_place[0].astype(np.uint64)
    word |= by_place[1].astype(np.uint64) << bits[0].astype(np.uint64)
    word |= by_place[2].astype(np.uint64) << (bits[0] + bits[1]).astype(np.uint64)
    halves = _half_bytes(bits)
    width = (4 * halves).astype(np.uint64)
    order = np.argsort(halves, kind="stable")
    pairs = np.empty((len(order), _PAIRS, 2), "<u8")
    pairs[..., 0] = (word[:_PAIRS] | (word[_PAIRS:] << width)).T[order]
    pairs[..., 1] = (word[_PAIRS:] >> (_WORD_BITS - width)).T[order]
    for size, chosen in _groups(halves):
        yield _bytes_of(pairs[chosen]).reshape(-1, _PAIRS, 16)[..., :size].ravel()


def _unpacked(data: Bytes, bits: Bytes) -> Words:
    """Return the words ``[B, 32]`` of all blocks."""
    halves = _half_bytes(bits)
    order = np.argsort(halves, kind="stable")
    pairs = np.zeros((len(order), _PAIRS, 16), np.uint8)
    begin = 0
    for size, chosen in _groups(halves):
        end = begin + (chosen.stop - chosen.start) * _PAIRS * size
        pairs[chosen, :, :size] = data[begin:end].reshape(-1, _PAIRS, size)
        begin = end
    both = pairs.view("<u8")
    width = (4 * halves).astype(np.uint64)[order, None]
    words = np.empty((len(order), BLOCK), np.uint64)
    words[order, :_PAIRS] = both[..., 0] & _mask(width)
    words[order, _PAIRS:] = (both[..., 0] >> width) | (both[..., 1] << (_WORD_BITS - width))
    return words


def _groups(halves: Int64) -> Iterator[tuple[int, slice]]:
    """Yield the half-bytes of a hit, and which of the blocks sorted by them have as many."""
    ends = np.bincount(halves).cumsum().tolist()
    for size, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if size and end > begin:
            yield size, slice(begin, end)


def _half_bytes(bits: Bytes) -> Int64:
    """Return how many half-bytes a hit of each block takes."""
    halves: Int64 = -(-bits.sum(axis=0, dtype=np.int64) // 4)
    return halves


def _mask(bits: NDArray[Any]) -> Words:
    """Return words with as many of the lowest bits set."""
    return (np.uint64(1) << bits.astype(np.uint64)) - np.uint64(1)


def _bytes_of(numbers: NDArray[Any]) -> Bytes:
    """Return numbers ``[...]`` as their bytes ``[..., size]``."""
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, numbers.itemsize)
