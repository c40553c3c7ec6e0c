"""Compact hits come back within half a step, labels exactly, and bytes that are neither are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trackserve.contract.compact import (
    BLOCK,
    HEAD,
    STEP,
    decode_hits,
    decode_labels,
    encode_hits,
    encode_labels,
    hits_in,
)
from trackserve.errors import InputError

TABLES = arrays(
    np.float32,
    st.tuples(st.integers(0, 3 * BLOCK), st.integers(3, 5)),
    elements=st.floats(-3000, 3000, width=32),
)


def hits(count=100, columns=3):
    return np.random.default_rng(1).normal(scale=300, size=(count, columns)).astype(np.float32)


def by_hand(data):
    """Read the positions bit by bit, as the module's docstring has them; ``[N, 3]`` in steps."""
    _, _, block, count, _ = HEAD.unpack(bytes(data[: HEAD.size]))
    blocks = -(-count // block)
    lowest = [
        int.from_bytes(data[HEAD.size + 3 * i : HEAD.size + 3 * i + 3], "little", signed=True)
        for i in range(3 * blocks)
    ]
    at = HEAD.size + 9 * blocks
    bits = [int(b) for b in data[at : at + 3 * blocks]]
    at += 3 * blocks
    halves = [-(-(bits[b] + bits[blocks + b] + bits[2 * blocks + b]) // 4) for b in range(blocks)]
    found = np.zeros((blocks * block, 3), np.int64)
    for b in sorted(range(blocks), key=lambda b: halves[b]):
        for k in range(block // 2):
            pair = int.from_bytes(bytes(data[at : at + halves[b]]), "little")
            at += halves[b]
            for place in (k, k + block // 2):
                word = pair & (1 << 4 * halves[b]) - 1
                pair >>= 4 * halves[b]
                for axis in range(3):
                    width = bits[axis * blocks + b]
                    found[b * block + place, axis] = lowest[axis * blocks + b] + (
                        word & (1 << width) - 1
                    )
                    word >>= width
    return found[:count]


@given(table=TABLES, step=st.sampled_from([0.001, 0.005, 0.02, 0.1]))
def test_hits_come_back_within_half_a_step(table, step):
    data = encode_hits(table, step)
    if data is None:  # steps so small that hits so far apart have no room
        assert step < 0.005
        return
    assert hits_in(data) == table.shape
    back = decode_hits(data)
    assert back.dtype == np.float32
    assert back.shape == table.shape
    # Half a step, and the rounding of float32 at 3 m.
    assert np.abs(back - table)[:, :3].max(initial=0) <= step / 2 + 2.5e-4
    np.testing.assert_array_equal(back[:, 3:], table[:, 3:])


@given(count=st.integers(1, 100), seed=st.integers(0, 99))
def test_the_bytes_are_those_of_the_description(count, seed):
    whole = np.random.default_rng(seed).integers(-50_000, 50_000, (count, 3))
    whole[:, seed % 3] //= 1 + seed
    data = encode_hits((whole * STEP).astype(np.float32))
    assert data is not None
    np.testing.assert_array_equal(by_hand(data), whole)
    np.testing.assert_array_equal(decode_hits(data), (whole * STEP).astype(np.float32))


def test_neighbours_take_half_the_bytes():
    modules = np.repeat(hits(40), BLOCK, axis=0)
    near = modules + np.random.default_rng(2).uniform(0, 20, modules.shape).astype(np.float32)
    data = encode_hits(near)
    assert data is not None
    assert len(data) < 0.42 * near.nbytes


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2e5])
def test_positions_without_room_are_not_encoded(wrong):
    table = hits()
    table[77, 1] = wrong
    assert encode_hits(table) is None


@given(labels=arrays(np.int64, st.integers(0, 70), elements=st.integers(-1, 70_000)))
def test_labels_come_back_exactly(labels):
    np.testing.assert_array_equal(decode_labels(encode_labels(labels), len(labels)), labels)


def test_few_tracks_take_two_bytes_a_hit_and_a_bit():
    assert len(encode_labels(np.arange(-1, 799))) == 100 + 2 * 799
    assert len(encode_labels(np.array([-1, 65_536]))) == 1 + 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:10], "10 bytes; expected at least 16"),
        (lambda data: data[:-1], "bytes; expected"),
        (lambda data: np.append(data, np.uint8(0)), "bytes; expected"),
        (lambda data: set_byte(data, 0, 2), "of version 2 with 32 hits a block"),
        (lambda data: set_byte(data, 2, 64), "of version 1 with 64 hits a block"),
        (lambda data: set_byte(data, 1, 2), "have 2 columns"),
        (lambda data: set_byte(data, 7, 255), "for 4,278,190,180 hits; expected at least"),
        (lambda data: set_bytes(data, 8, np.float64(0).tobytes()), "in steps of 0 mm"),
        (lambda data: set_bytes(data, 8, np.float64(np.nan).tobytes()), "in steps of nan mm"),
        (
            lambda data: set_byte(data, HEAD.size + 9 * 4, 200),
            "bits for a hit; expected at most 64",
        ),
    ],
)
def test_other_bytes_are_no_hits(change, message):
    data = encode_hits(hits())
    assert data is not None
    with pytest.raises(InputError, match=message):
        decode_hits(change(data))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_hits_or_refused(data):
    given_bytes = np.frombuffer(HEAD.pack(1, 3, BLOCK, len(data) % 40, STEP) + data, np.uint8)
    try:
        count, _ = hits_in(given_bytes)
        assert decode_hits(given_bytes).shape == (count, 3)
    except InputError:
        pass


@pytest.mark.parametrize("size", [0, 1, 12, 14, 400])
def test_other_bytes_are_no_labels(size):
    with pytest.raises(InputError, match="are not the compact labels of 100 hits"):
        decode_labels(np.full(size, 1, np.uint8), 100)


def set_byte(data, at, value):
    return set_bytes(data, at, bytes([value]))


def set_bytes(data, at, values):
    changed = data.copy()
    changed[at : at + len(values)] = np.frombuffer(values, np.uint8)
    return changed
