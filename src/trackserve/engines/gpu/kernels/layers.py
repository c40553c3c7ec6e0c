"""Layers of networks on a block of rows in registers, and the list of the rows that pass a cut."""

import triton
import triton.language as tl


@triton.jit
def dense(x, weights, K: tl.constexpr, W: tl.constexpr, PRECISION: tl.constexpr):
    """Return x [B, K] times weights [K, W], summed in float32; 32 at a time, or registers would spill."""
    if K > 32:
        half: tl.constexpr = K // 2
        left, right = tl.split(tl.permute(tl.reshape(x, [x.shape[0], 2, half]), [0, 2, 1]))
        sums = dense(left, weights, half, W, PRECISION)
        return sums + dense(right, weights + half * W, half, W, PRECISION)
    return product(x, weights, K, W, PRECISION)


@triton.jit
def product(x, weights, K: tl.constexpr, W: tl.constexpr, PRECISION: tl.constexpr):
    """Return x [B, K] times weights [K, W].

    ``widened`` is for Triton's interpreter, which can't multiply bfloat16: as float32, the products are
    the same.
    """
    rows = tl.arange(0, K)
    columns = tl.arange(0, W)
    weight = tl.load(weights + rows[:, None] * W + columns[None, :])
    x = x.to(weight.dtype)
    if PRECISION == "widened":
        return tl.dot(x.to(tl.float32), weight.to(tl.float32), input_precision="ieee")
    return tl.dot(x, weight, input_precision=PRECISION)


@triton.jit
def relu(x):
    """Return the positive part."""
    return tl.maximum(x, 0.0)


@triton.jit
def hidden_layers(
    x, weights, biases, LAYERS: tl.constexpr, W: tl.constexpr, PRECISION: tl.constexpr
):
    """Return x [B, W] after further layers of ReLU; weights [LAYERS, W, W], biases [LAYERS, W]."""
    columns = tl.arange(0, W)
    # Neither unrolled nor pipelined: with the weights of two layers at hand, registers would spill.
    for layer in tl.range(LAYERS, num_stages=1):
        sums = dense(x, weights + layer * W * W, W, W, PRECISION)
        x = relu(sums + tl.load(biases + layer * W + columns)[None, :])
    return x


@triton.jit
def last_layer(x, weights, bias, W: tl.constexpr):
    """Return the one output [B] of x [B, W]."""
    weight = tl.load(weights + tl.arange(0, W)).to(tl.float32)
    return tl.sum(x * weight[None, :], axis=1) + tl.load(bias)


@triton.jit
def normalise(x, gain, offset, WIDTH: tl.constexpr, W: tl.constexpr):
    """Return the layer normalisation of x [B, W], of which WIDTH columns are filled."""
    columns = tl.arange(0, W)
    mean = tl.sum(x, axis=1) / WIDTH
    x = tl.where(columns[None, :] < WIDTH, x - mean[:, None], 0.0)
    variance = tl.sum(x * x, axis=1) / WIDTH
    x = x * (1.0 / tl.sqrt(variance + 1e-5))[:, None]
    return x * tl.load(gain + columns)[None, :] + tl.load(offset + columns)[None, :]


@triton.jit
def append(passed, keys, found, count, room):
    """Write the keys [B] that passed behind those found by others, as far as there is room.

    ``count`` grows by all of them, so that afterwards it is known what room there should have been.
    The order is that in which programs come; what depends on it is sorted.
    """
    chosen = passed.to(tl.int32)
    before = tl.atomic_add(count, tl.sum(chosen, axis=0).to(tl.int64))
    place = before + tl.cumsum(chosen, axis=0).to(tl.int64) - 1
    tl.store(found + place, keys, mask=passed & (place < room))
