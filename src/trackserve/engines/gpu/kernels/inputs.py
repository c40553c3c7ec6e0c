"""What the networks see of hits, pairs and triplets, as training/networks.py defines it.

Inputs are worked out in registers and multiplied by the first layer one at a time: a network has few
of them, and no matrix of inputs has to be in memory.
"""

import triton
import triton.language as tl

TURN = tl.constexpr(6.283185307179586)
TO_WHOLE = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it to a float32 drops the fraction


@triton.jit
def step_in_phi(dphi):
    """Bring a difference of azimuths into [-pi, pi], with halves to even as torch.round."""
    turns = dphi / TURN
    whole = tl.where(tl.abs(turns) < 4194304.0, (turns + TO_WHOLE) - TO_WHOLE, turns)
    return dphi - TURN * whole


@triton.jit
def load_hit(seen, hit, mask):
    """Load r (m), phi (rad), z (m) and eta of hits [B]."""
    at = seen + hit.to(tl.int64) * 4
    r = tl.load(at, mask=mask, other=1.0)
    phi = tl.load(at + 1, mask=mask, other=0.0)
    z = tl.load(at + 2, mask=mask, other=0.0)
    eta = tl.load(at + 3, mask=mask, other=0.0)
    return r, phi, z, eta


@triton.jit
def add_input(sums, x, weights, row, columns, W: tl.constexpr):
    """Add one input [B] times its weights [W] to the sums [B, W]."""
    weight = tl.load(weights + row * W + columns).to(tl.float32)
    return sums + x[:, None] * weight[None, :]


@triton.jit
def clamp(x, bound: tl.constexpr):
    """Bring x into [-bound, bound]."""
    return tl.minimum(tl.maximum(x, -bound), bound)


@triton.jit
def add_pair(sums, r0, phi0, z0, eta0, r1, phi1, z1, eta1, weights, row, columns, W: tl.constexpr):
    """Add the seven inputs of pairs of hits, from the inner to the outer, to the sums [B, W]."""
    dr = r1 - r0
    dz = z1 - z0
    dphi = step_in_phi(phi1 - phi0)
    lever = tl.where(dr < 0, -1.0, 1.0) * tl.maximum(tl.abs(dr), 1e-3)
    sums = add_input(sums, 10 * dr, weights, row, columns, W)
    sums = add_input(sums, 5 * dz, weights, row + 1, columns, W)
    sums = add_input(sums, 30 * dphi, weights, row + 2, columns, W)
    sums = add_input(sums, 20 * (eta1 - eta0), weights, row + 3, columns, W)
    sums = add_input(sums, clamp(3 * (dphi / lever), 5.0), weights, row + 4, columns, W)
    beam = z0 - r0 * dz / lever
    sums = add_input(sums, clamp(10 * beam, 5.0), weights, row + 5, columns, W)
    return add_input(sums, 5 * tl.sqrt(dr * dr + dz * dz), weights, row + 6, columns, W)


@triton.jit
def add_hit(
    sums,
    r,
    z,
    eta,
    further,
    hit,
    mask,
    weights,
    row,
    columns,
    W: tl.constexpr,
    FURTHER: tl.constexpr,
):
    """Add a hit's own inputs to the sums [B, W]."""
    sums = add_input(sums, r, weights, row, columns, W)
    sums = add_input(sums, z / 2, weights, row + 1, columns, W)
    sums = add_input(sums, eta / 2, weights, row + 2, columns, W)
    for k in tl.static_range(FURTHER):
        x = tl.load(further + hit.to(tl.int64) * FURTHER + k, mask=mask, other=0.0)
        sums = add_input(sums, x, weights, row + 3 + k, columns, W)
    return sums


@triton.jit
def edge_sums(
    seen,
    further,
    inner,
    outer,
    mask,
    weights,
    bias,
    B: tl.constexpr,
    W: tl.constexpr,
    FURTHER: tl.constexpr,
):
    """Return the first layer of a network on edges [B, W]: the pair, its inner and its outer hit."""
    columns = tl.arange(0, W)
    hit = 3 + FURTHER
    r0, phi0, z0, eta0 = load_hit(seen, inner, mask)
    r1, phi1, z1, eta1 = load_hit(seen, outer, mask)
    sums = tl.zeros([B, W], tl.float32) + tl.load(bias + columns)[None, :]
    sums = add_pair(sums, r0, phi0, z0, eta0, r1, phi1, z1, eta1, weights, 0, columns, W)
    sums = add_hit(sums, r0, z0, eta0, further, inner, mask, weights, 7, columns, W, FURTHER)
    return add_hit(sums, r1, z1, eta1, further, outer, mask, weights, 7 + hit, columns, W, FURTHER)


@triton.jit
def chord(r0, phi0, z0, r1, phi1, z1):
    """Return what a triplet is worked out from, of one edge.

    Its transverse components along and across the radius of its inner and of its outer hit, its
    transverse length, its length along the beam (m), and twice its turn about the beam line.
    """
    dphi = step_in_phi(phi1 - phi0)
    square = dphi * dphi
    sin = dphi * (1 - square * (1.0 / 6 - square / 120))
    less = square * (0.5 - square * (1.0 / 24 - square / 720))
    dr = r1 - r0
    along_inner = dr - r1 * less
    across_inner = r1 * sin
    length = tl.sqrt(along_inner * along_inner + across_inner * across_inner) + 1e-6
    return along_inner, across_inner, dr + r0 * less, r0 * sin, length, z1 - z0, 2 * sin / length


@triton.jit
def soft(x, scale: tl.constexpr):
    """Return x / (scale + |x|)."""
    return x / (scale + tl.abs(x))


@triton.jit
def triplet_sums(
    seen,
    further,
    a,
    b,
    c,
    mask,
    weights,
    bias,
    B: tl.constexpr,
    W: tl.constexpr,
    FURTHER: tl.constexpr,
):
    """Return the first layer of a triplet classifier for hits a, b, c [B, W]."""
    columns = tl.arange(0, W)
    hit = 3 + FURTHER
    ra, phia, za, etaa = load_hit(seen, a, mask)
    rb, phib, zb, etab = load_hit(seen, b, mask)
    rc, phic, zc, etac = load_hit(seen, c, mask)
    _, _, ux, uy, u, uz, u_bend = chord(ra, phia, za, rb, phib, zb)
    vx, vy, _, _, v, vz, v_bend = chord(rb, phib, zb, rc, phic, zc)
    turn = (ux * vy - uy * vx) / (u * v)
    bend = turn - (u_bend + v_bend) * (u + v) / 4
    off = bend * u * v / (u + v)
    u_length = tl.sqrt(u * u + uz * uz)
    v_length = tl.sqrt(v * v + vz * vz)
    area = u * vz - v * uz
    kink = area / (u_length * v_length)
    off_along = area / (u_length + v_length)
    sums = tl.zeros([B, W], tl.float32) + tl.load(bias + columns)[None, :]
    sums = add_input(sums, soft(kink, 2e-3), weights, 0, columns, W)
    sums = add_input(sums, soft(kink, 5e-2), weights, 1, columns, W)
    sums = add_input(sums, soft(off_along, 1e-4), weights, 2, columns, W)
    sums = add_input(sums, soft(off_along, 2e-3), weights, 3, columns, W)
    sums = add_input(sums, soft(bend, 1e-3), weights, 4, columns, W)
    sums = add_input(sums, soft(bend, 3e-2), weights, 5, columns, W)
    sums = add_input(sums, soft(off, 3e-5), weights, 6, columns, W)
    sums = add_input(sums, soft(off, 5e-4), weights, 7, columns, W)
    sums = add_input(sums, soft(u_bend - v_bend, 2e-2), weights, 8, columns, W)
    sums = add_pair(sums, ra, phia, za, etaa, rb, phib, zb, etab, weights, 9, columns, W)
    sums = add_hit(sums, ra, za, etaa, further, a, mask, weights, 16, columns, W, FURTHER)
    sums = add_hit(sums, rb, zb, etab, further, b, mask, weights, 16 + hit, columns, W, FURTHER)
    sums = add_pair(sums, rb, phib, zb, etab, rc, phic, zc, etac, weights, 16 + 2 * hit, columns, W)
    return add_hit(sums, rc, zc, etac, further, c, mask, weights, 23 + 2 * hit, columns, W, FURTHER)
