"""Algorithm 1: pairs of hits within a radius that pass the doublet cuts.

Hits lie in tiles of LEAF that are close together in the embedding and in azimuth. Boxes of tiles show
which tiles may hold pairs; those are compared hit by hit, each two tiles once. Both kernels append.
Compile them without fused multiply-adds: the cuts round as numpy does.
"""

import triton
import triton.language as tl

FULL_TURN = tl.constexpr(6.2831854820251465)  # 2 pi as a float32
PHI, R, COT, INVERSE_R, EVENT = (tl.constexpr(i) for i in range(5))
"""What a box has beyond the axes of the embedding."""
QUANTITIES = 5


@triton.jit
def gap(low_a, high_a, low_b, high_b):
    """Return the distance between two intervals."""
    return tl.maximum(tl.maximum(low_a - high_b, low_b - high_a), 0.0)


@triton.jit
def reach(low_a, high_a, low_b, high_b):
    """Return the largest distance of numbers in two intervals."""
    return tl.maximum(high_a - low_b, high_b - low_a)


@triton.jit
def near_tiles_kernel(
    low,
    high,
    tiles,
    far,
    slope,
    dphi,
    z0,
    dcot,
    found,
    count,
    room,
    A: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    SLOPE: tl.constexpr,
    Z0: tl.constexpr,
):
    """Append pairs of tiles (first * 2^32 + second) whose hits may be neighbours.

    ``low`` and ``high`` [D + 5, tiles] are the boxes; ``far`` is the squared radius with a margin.
    """
    first = tl.program_id(0) * A + tl.arange(0, A)
    second = tl.program_id(1) * B + tl.arange(0, B)
    if (tl.program_id(1) + 1) * B > tl.program_id(0) * A:
        in_first = first < tiles
        in_second = second < tiles
        passed = in_first[:, None] & in_second[None, :] & (first[:, None] <= second[None, :])
        distance = tl.zeros([A, B], tl.float32)
        for axis in tl.static_range(D):
            row = axis * tiles
            low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
            high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
            low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
            high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
            between = gap(low_a, high_a, low_b, high_b)
            distance += between * between
        passed &= distance <= far
        row = (D + EVENT) * tiles
        low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
        high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
        low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
        high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
        passed &= gap(low_a, high_a, low_b, high_b) <= 0
        if SLOPE:  # rounded as in pairs_kernel, and rounding keeps the order of numbers
            row = (D + R) * tiles
            low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
            high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
            low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
            high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
            widest = slope * reach(low_a, high_a, low_b, high_b) + dphi
            row = (D + PHI) * tiles
            low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
            high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
            low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
            high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
            around = FULL_TURN - reach(low_a, high_a, low_b, high_b)
            passed &= (gap(low_a, high_a, low_b, high_b) <= widest) | (around <= widest)
        if Z0:  # divided by both radii, with room for rounding: pairs_kernel multiplies by them
            row = (D + INVERSE_R) * tiles
            low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
            high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
            low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
            high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
            step = reach(low_a, high_a, low_b, high_b) + 1e-6 * tl.maximum(high_a, high_b)
            row = (D + COT) * tiles
            low_a = tl.load(low + row + first, mask=in_first, other=0.0)[:, None]
            high_a = tl.load(high + row + first, mask=in_first, other=0.0)[:, None]
            low_b = tl.load(low + row + second, mask=in_second, other=0.0)[None, :]
            high_b = tl.load(high + row + second, mask=in_second, other=0.0)[None, :]
            largest = tl.maximum(tl.abs(low_a), tl.abs(high_a))
            largest = tl.maximum(largest, tl.maximum(tl.abs(low_b), tl.abs(high_b)))
            bound = 1.00001 * (z0 * step + dcot) + 1e-6 * largest
            # Not a number where a box reaches to infinity: then all is possible.
            passed &= (gap(low_a, high_a, low_b, high_b) > bound) == 0
        pair = (first.to(tl.int64)[:, None] << 32) | second.to(tl.int64)[None, :]
        chosen = passed.to(tl.int32)
        total = tl.sum(tl.sum(chosen, axis=1), axis=0)
        if total > 0:
            before = tl.atomic_add(count, total.to(tl.int64))
            flat = tl.reshape(chosen, [A * B])
            place = before + tl.cumsum(flat, axis=0).to(tl.int64) - 1
            keep = (flat > 0) & (place < room)
            tl.store(found + place, tl.reshape(pair, [A * B]), mask=keep)


@triton.jit
def exact_distance(points, one, other, D: tl.constexpr, LEAF: tl.constexpr):
    """Return squared float64 distances [LEAF, LEAF], added up as scipy's cKDTree does."""
    lane = tl.arange(0, LEAF)
    parts0 = tl.zeros([LEAF, LEAF], tl.float64)
    parts1 = tl.zeros([LEAF, LEAF], tl.float64)
    parts2 = tl.zeros([LEAF, LEAF], tl.float64)
    parts3 = tl.zeros([LEAF, LEAF], tl.float64)
    rest = tl.zeros([LEAF, LEAF], tl.float64)
    whole: tl.constexpr = D // 4 * 4
    for k in tl.static_range(D):
        a = tl.load(points + (one * D + k) * LEAF + lane).to(tl.float64)
        b = tl.load(points + (other * D + k) * LEAF + lane).to(tl.float64)
        step = a[:, None] - b[None, :]
        square = step * step
        if k >= whole:
            if k == whole:
                rest = ((parts0 + parts1) + parts2) + parts3
            rest += square
        elif k % 4 == 0:
            parts0 += square
        elif k % 4 == 1:
            parts1 += square
        elif k % 4 == 2:
            parts2 += square
        else:
            parts3 += square
    if D % 4 == 0:
        rest = ((parts0 + parts1) + parts2) + parts3
    return rest


@triton.jit
def pairs_kernel(
    points,
    position,
    rank,
    event,
    size,
    tile_pairs,
    tile_pair_count,
    radius,
    sure,
    possible,
    slope,
    dphi,
    z0,
    dcot,
    found,
    count,
    room,
    degree,
    D: tl.constexpr,
    LEAF: tl.constexpr,
    SLOPE: tl.constexpr,
    Z0: tl.constexpr,
):
    """Append the pairs of hits (inner * 2^32 + outer, canonical rows) of one pair of tiles.

    Hits at one distance from the origin are no pair; of others the lower canonical row is the inner.
    ``points`` [tiles, D, LEAF], ``position`` [3, tiles * LEAF] (r, phi, z), ``rank`` (the canonical row)
    and ``event`` are in the tiles' order; ``radius`` [1] is the float64 bound below which a squared
    distance has to be, ``sure`` and ``possible`` are where float32 needs no second look. ``degree`` [N]
    counts each hit's pairs.
    """
    program = tl.program_id(0)
    if program < tl.load(tile_pair_count):
        tiles = tl.load(tile_pairs + program)
        one = tiles >> 32
        other = tiles & 0xFFFFFFFF
        lane = tl.arange(0, LEAF)
        row_a = one * LEAF + lane
        row_b = other * LEAF + lane
        distance = tl.zeros([LEAF, LEAF], tl.float32)
        for k in tl.static_range(D):
            a = tl.load(points + (one * D + k) * LEAF + lane)
            b = tl.load(points + (other * D + k) * LEAF + lane)
            step = a[:, None] - b[None, :]
            distance += step * step
        rank_a = tl.load(rank + row_a)
        rank_b = tl.load(rank + row_b)
        near = distance <= possible
        near &= (row_a[:, None] < row_b[None, :]) & (rank_a >= 0)[:, None] & (rank_b >= 0)[None, :]
        near &= tl.load(event + row_a)[:, None] == tl.load(event + row_b)[None, :]
        doubtful = near & (distance >= sure)
        if tl.sum(tl.sum(doubtful.to(tl.int32), axis=1), axis=0) > 0:
            near &= exact_distance(points, one, other, D, LEAF) < tl.load(radius)
        if tl.sum(tl.sum(near.to(tl.int32), axis=1), axis=0) > 0:
            r_a = tl.load(position + row_a)
            r_b = tl.load(position + row_b)
            phi_a = tl.load(position + size + row_a)
            phi_b = tl.load(position + size + row_b)
            z_a = tl.load(position + 2 * size + row_a)
            z_b = tl.load(position + 2 * size + row_b)
            outwards = rank_a[:, None] < rank_b[None, :]
            from_a = r_a * r_a + z_a * z_a
            from_b = r_b * r_b + z_b * z_b
            near &= from_a[:, None] != from_b[None, :]
            dr = tl.abs(r_b[None, :] - r_a[:, None])
            if SLOPE:
                turn = tl.abs(phi_b[None, :] - phi_a[:, None])
                turn = tl.minimum(turn, FULL_TURN - turn)
                near &= turn <= slope * dr + dphi
            if Z0:
                lever = tl.abs(z_a[:, None] * r_b[None, :] - z_b[None, :] * r_a[:, None])
                near &= lever <= z0 * dr + dcot * (r_a[:, None] * r_b[None, :])
            chosen = near.to(tl.int32)
            of_a = tl.sum(chosen, axis=1)
            total = tl.sum(of_a, axis=0)
            if total > 0:
                of_b = tl.sum(chosen, axis=0)
                tl.atomic_add(degree + rank_a, of_a, mask=of_a > 0)
                tl.atomic_add(degree + rank_b, of_b, mask=of_b > 0)
                before = tl.atomic_add(count, total.to(tl.int64))
                inner = tl.where(outwards, rank_a[:, None], rank_b[None, :]).to(tl.int64)
                outer = tl.where(outwards, rank_b[None, :], rank_a[:, None]).to(tl.int64)
                pair = tl.reshape((inner << 32) | outer, [LEAF * LEAF])
                flat = tl.reshape(chosen, [LEAF * LEAF])
                place = before + tl.cumsum(flat, axis=0).to(tl.int64) - 1
                tl.store(found + place, pair, mask=(flat > 0) & (place < room))
