"""Algorithm 2 and network 3: edges that meet in a hit, the cuts on both, and their logit."""

import triton
import triton.language as tl

from trackserve.engines.gpu.kernels.inputs import triplet_sums
from trackserve.engines.gpu.kernels.layers import append, hidden_layers, last_layer, relu


@triton.jit
def load_step(steps, edge, edges, mask):
    """Load dr (mm), dz (mm), dphi (rad) and the length in r and z (mm) of edges [B]."""
    dr = tl.load(steps + edge, mask=mask, other=1.0)
    dz = tl.load(steps + edges + edge, mask=mask, other=0.0)
    dphi = tl.load(steps + 2 * edges + edge, mask=mask, other=0.0)
    length = tl.load(steps + 3 * edges + edge, mask=mask, other=1.0)
    return dr, dz, dphi, length


@triton.jit
def join_kernel(
    outer,
    first_edge,
    ends,
    edges,
    steps,
    kink,
    off,
    slope,
    dphi,
    found,
    count,
    room,
    B: tl.constexpr,
    SEARCH: tl.constexpr,
    KINK: tl.constexpr,
    SLOPE: tl.constexpr,
):
    """Append the triplets (first edge * 2^32 + second) that pass the cuts.

    ``ends`` [E] counts the pairs of edges up to and with each edge as first; a program looks at B
    pairs in a row. Compile it without fused multiply-adds: the cuts round as numpy does.
    """
    pair = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = pair < tl.load(ends + edges - 1)
    low = tl.zeros([B], tl.int64)  # the first edge whose pairs end behind this one
    high = tl.zeros([B], tl.int64) + edges - 1
    for _ in tl.static_range(SEARCH):
        middle = (low + high) // 2
        behind = tl.load(ends + middle) > pair
        high = tl.where(behind, middle, high)
        low = tl.where(behind, low, tl.minimum(middle + 1, high))
    one = low
    begin = tl.load(ends + one - 1, mask=mask & (one > 0), other=0)
    hit = tl.load(outer + one, mask=mask, other=0)
    other = tl.load(first_edge + hit, mask=mask, other=0) + (pair - begin)
    dr, dz, turn, length = load_step(steps, one, edges, mask)
    other_dr, other_dz, other_turn, other_length = load_step(steps, other, edges, mask)
    passed = mask
    if KINK:
        area = tl.abs(dr * other_dz - other_dr * dz)
        passed &= area <= kink * (length * other_length) + off * (length + other_length)
    if SLOPE:
        dr = tl.abs(dr)
        other_dr = tl.abs(other_dr)
        difference = tl.abs(turn * other_dr - other_turn * dr)
        passed &= difference <= slope * (dr * other_dr) + dphi * (dr + other_dr)
    append(passed, (one << 32) | other, found, count, room)


@triton.jit
def triplet_kernel(
    seen,
    further,
    inner,
    outer,
    triplets,
    triplet_count,
    first,
    first_bias,
    hidden,
    hidden_bias,
    last,
    last_bias,
    least,
    logits,
    kept,
    kept_count,
    room,
    B: tl.constexpr,
    W: tl.constexpr,
    LAYERS: tl.constexpr,
    FURTHER: tl.constexpr,
    PRECISION: tl.constexpr,
    LOGITS: tl.constexpr,
):
    """Append the triplets whose logit is at least ``least``; or write the logits."""
    rows = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = rows < tl.load(triplet_count)
    triplet = tl.load(triplets + rows, mask=mask, other=0)
    one = triplet >> 32
    other = triplet & 0xFFFFFFFF
    a = tl.load(inner + one, mask=mask, other=0)
    b = tl.load(outer + one, mask=mask, other=0)
    c = tl.load(outer + other, mask=mask, other=0)
    x = relu(triplet_sums(seen, further, a, b, c, mask, first, first_bias, B, W, FURTHER))
    x = hidden_layers(x, hidden, hidden_bias, LAYERS, W, PRECISION)
    logit = last_layer(x, last, last_bias, W)
    if LOGITS:
        tl.store(logits + rows, logit, mask=mask)
    else:
        append(mask & (logit >= least), triplet, kept, kept_count, room)
