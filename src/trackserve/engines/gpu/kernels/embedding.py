"""Network 1: from the inputs of a hit to its point in one pass."""

import triton
import triton.language as tl

from trackserve.engines.gpu.kernels.inputs import add_input
from trackserve.engines.gpu.kernels.layers import dense, hidden_layers, relu


@triton.jit
def embedding_kernel(
    seen,
    further,
    hits,
    first,
    first_bias,
    hidden,
    hidden_bias,
    last,
    last_bias,
    points,
    B: tl.constexpr,
    W: tl.constexpr,
    LAYERS: tl.constexpr,
    D: tl.constexpr,
    WIDE_D: tl.constexpr,
    FURTHER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the points [N, D] of hits, given by r, z, eta, cos phi, sin phi, x, y and further features."""
    rows = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = rows < hits
    columns = tl.arange(0, W)
    at = seen + rows * 4
    r = tl.load(at, mask=mask, other=1.0)
    phi = tl.load(at + 1, mask=mask, other=0.0)
    z = tl.load(at + 2, mask=mask, other=0.0)
    eta = tl.load(at + 3, mask=mask, other=0.0)
    cos = tl.cos(phi)
    sin = tl.sin(phi)
    sums = tl.zeros([B, W], tl.float32) + tl.load(first_bias + columns)[None, :]
    sums = add_input(sums, r, first, 0, columns, W)
    sums = add_input(sums, z, first, 1, columns, W)
    sums = add_input(sums, eta / 4, first, 2, columns, W)
    sums = add_input(sums, cos, first, 3, columns, W)
    sums = add_input(sums, sin, first, 4, columns, W)
    sums = add_input(sums, r * cos, first, 5, columns, W)
    sums = add_input(sums, r * sin, first, 6, columns, W)
    for k in tl.static_range(FURTHER):
        x = tl.load(further + rows * FURTHER + k, mask=mask, other=0.0)
        sums = add_input(sums, x, first, 7 + k, columns, W)
    x = hidden_layers(relu(sums), hidden, hidden_bias, LAYERS, W, PRECISION)
    axes = tl.arange(0, WIDE_D)
    point = dense(x, last, W, WIDE_D, PRECISION) + tl.load(last_bias + axes)[None, :]
    tl.store(
        points + rows[:, None] * D + axes[None, :], point, mask=mask[:, None] & (axes < D)[None, :]
    )
