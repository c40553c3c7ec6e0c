"""Network 4: states of edges (nodes) and of triplets (links), updated in turn.

W  width of a state, a power of two, of which WIDTH columns are filled
"""

import triton
import triton.language as tl

from trackserve.engines.gpu.kernels.inputs import edge_sums, triplet_sums
from trackserve.engines.gpu.kernels.layers import dense, last_layer, normalise, relu


@triton.jit
def store_states(states, rows, values, mask, W: tl.constexpr):
    """Write the states [B, W] of rows."""
    columns = tl.arange(0, W)
    at = states + rows.to(tl.int64)[:, None] * W + columns[None, :]
    tl.store(at, values.to(states.dtype.element_ty), mask=mask[:, None])


@triton.jit
def load_states(states, rows, mask, W: tl.constexpr):
    """Read the states [B, W] of rows, as float32; zeros where masked."""
    columns = tl.arange(0, W)
    at = states + rows.to(tl.int64)[:, None] * W + columns[None, :]
    return tl.load(at, mask=mask[:, None], other=0.0).to(tl.float32)


@triton.jit
def encode_nodes_kernel(
    seen,
    further,
    inner,
    outer,
    edge_count,
    first,
    first_bias,
    last,
    last_bias,
    nodes,
    B: tl.constexpr,
    W: tl.constexpr,
    FURTHER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the first states of nodes [E, W] from the hits of their edges."""
    rows = tl.program_id(0) * B + tl.arange(0, B)
    mask = rows < tl.load(edge_count)
    a = tl.load(inner + rows, mask=mask, other=0)
    b = tl.load(outer + rows, mask=mask, other=0)
    x = relu(edge_sums(seen, further, a, b, mask, first, first_bias, B, W, FURTHER))
    x = dense(x, last, W, W, PRECISION) + tl.load(last_bias + tl.arange(0, W))[None, :]
    store_states(nodes, rows, x, mask, W)


@triton.jit
def encode_links_kernel(
    seen,
    further,
    inner,
    outer,
    one,
    other,
    triplet_count,
    first,
    first_bias,
    last,
    last_bias,
    links,
    B: tl.constexpr,
    W: tl.constexpr,
    FURTHER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the first states of links [T, W] from the three hits of their triplets."""
    rows = tl.program_id(0) * B + tl.arange(0, B)
    mask = rows < tl.load(triplet_count)
    edge = tl.load(one + rows, mask=mask, other=0)
    onward = tl.load(other + rows, mask=mask, other=0)
    a = tl.load(inner + edge, mask=mask, other=0)
    b = tl.load(outer + edge, mask=mask, other=0)
    c = tl.load(outer + onward, mask=mask, other=0)
    x = relu(triplet_sums(seen, further, a, b, c, mask, first, first_bias, B, W, FURTHER))
    x = dense(x, last, W, W, PRECISION) + tl.load(last_bias + tl.arange(0, W))[None, :]
    store_states(links, rows, x, mask, W)


@triton.jit
def sum_links(
    links, begins, listed, rows, mask, LISTED: tl.constexpr, B: tl.constexpr, W: tl.constexpr
):
    """Return the sums [B, W] of the links of nodes, one after the other, so that every run rounds alike."""
    begin = tl.load(begins + rows, mask=mask, other=0)
    end = tl.load(begins + rows + 1, mask=mask, other=0)
    sums = tl.zeros([B, W], tl.float32)
    most = tl.max(end - begin, axis=0)
    for step in range(most):
        link = begin + step
        here = link < end
        if LISTED:
            link = tl.load(listed + link, mask=here, other=0)
        sums += load_states(links, link, here, W)
    return sums


@triton.jit
def update_nodes_kernel(
    nodes,
    links,
    edge_count,
    outgoing,
    incoming,
    incoming_links,
    own,
    from_inside,
    from_outside,
    bias,
    gain,
    offset,
    last,
    last_bias,
    link_first,
    link_second,
    to_first,
    to_second,
    score,
    score_bias,
    score_last,
    score_last_bias,
    logits,
    B: tl.constexpr,
    W: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
    SCORE: tl.constexpr,
):
    """Update the states of nodes in place, and write what they add to their links; or score them.

    ``outgoing`` and ``incoming`` [E + 1] are where the links begin of which a node is the first and the
    second; the latter are listed in ``incoming_links``.
    """
    rows = tl.program_id(0) * B + tl.arange(0, B)
    mask = rows < tl.load(edge_count)
    columns = tl.arange(0, W)
    state = load_states(nodes, rows, mask, W)
    sums = dense(state, own, W, W, PRECISION) + tl.load(bias + columns)[None, :]
    messages = sum_links(links, incoming, incoming_links, rows, mask, True, B, W)
    sums += dense(messages, from_inside, W, W, PRECISION)
    messages = sum_links(links, outgoing, incoming_links, rows, mask, False, B, W)
    sums += dense(messages, from_outside, W, W, PRECISION)
    x = relu(normalise(sums, gain, offset, WIDTH, W))
    state += dense(x, last, W, W, PRECISION) + tl.load(last_bias + columns)[None, :]
    if SCORE:
        x = relu(dense(state, score, W, W, PRECISION) + tl.load(score_bias + columns)[None, :])
        tl.store(logits + rows, last_layer(x, score_last, score_last_bias, W), mask=mask)
    else:
        store_states(nodes, rows, state, mask, W)
        store_states(to_first, rows, dense(state, link_first, W, W, PRECISION), mask, W)
        store_states(to_second, rows, dense(state, link_second, W, W, PRECISION), mask, W)


@triton.jit
def update_links_kernel(
    links,
    one,
    other,
    triplet_count,
    to_first,
    to_second,
    own,
    bias,
    gain,
    offset,
    last,
    last_bias,
    B: tl.constexpr,
    W: tl.constexpr,
    WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Update the states of links in place from their own and their two nodes'."""
    rows = tl.program_id(0) * B + tl.arange(0, B)
    mask = rows < tl.load(triplet_count)
    columns = tl.arange(0, W)
    state = load_states(links, rows, mask, W)
    sums = dense(state, own, W, W, PRECISION) + tl.load(bias + columns)[None, :]
    sums += load_states(to_first, tl.load(one + rows, mask=mask, other=0), mask, W)
    sums += load_states(to_second, tl.load(other + rows, mask=mask, other=0), mask, W)
    x = relu(normalise(sums, gain, offset, WIDTH, W))
    state += dense(x, last, W, W, PRECISION) + tl.load(last_bias + columns)[None, :]
    store_states(links, rows, state, mask, W)
