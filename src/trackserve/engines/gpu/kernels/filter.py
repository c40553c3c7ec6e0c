"""Network 2: from the two hits of an edge to its logit and the cut in one pass."""

import triton
import triton.language as tl

from trackserve.engines.gpu.kernels.inputs import edge_sums
from trackserve.engines.gpu.kernels.layers import append, hidden_layers, last_layer, relu


@triton.jit
def filter_kernel(
    seen,
    further,
    edges,
    edge_count,
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
    """Append the edges (inner * 2^32 + outer) whose logit is at least ``least``; or write the logits."""
    rows = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = rows < tl.load(edge_count)
    edge = tl.load(edges + rows, mask=mask, other=0)
    inner = edge >> 32
    outer = edge & 0xFFFFFFFF
    x = relu(edge_sums(seen, further, inner, outer, mask, first, first_bias, B, W, FURTHER))
    x = hidden_layers(x, hidden, hidden_bias, LAYERS, W, PRECISION)
    logit = last_layer(x, last, last_bias, W)
    if LOGITS:
        tl.store(logits + rows, logit, mask=mask)
    else:
        append(mask & (logit >= least), edge, kept, kept_count, room)
