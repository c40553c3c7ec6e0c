"""The fit of tracks and which pieces of tracks may go on in each other, as pipeline/fit.py and joining.py.

Both are in float64: the fit's covariances span more than a float32 does, and few tracks are fitted
beside the edges that are scored. A program has B tracks or pieces, one in each lane.
"""

import triton
import triton.language as tl

from trackserve.engines.gpu.kernels.layers import append

U, V, U_VARIANCE, V_VARIANCE, KICK, STEP, ONCE, TWICE = (tl.constexpr(i) for i in range(8))
"""Rows of the hits of tracks: what the fit takes, and the way from the hit outside."""
CURVATURE, COT, LAST_STEP, LAST_ONCE, LAST_TWICE = (tl.constexpr(i) for i in range(5))
"""Rows of tracks: the reference, and the way from the first hit to the beam line."""


@triton.jit
def move_along(a0, a1, a2, uu, us, uk, ss, sk, kk, k, h, once, twice):
    """Carry a state and its covariance by an arc h along a circle of curvature k."""
    turn = k * h
    c = 1 - 0.5 * turn * turn
    d = h * (1 - turn * turn / 6)
    e = -turn * k * (1 - turn * turn / 6)
    u = c * a0 + d * a1 + twice * a2 - 0.5 * h * turn
    slope = e * a0 + c * a1 + once * a2 - turn
    to_uk = c * uk + d * sk + twice * kk
    to_sk = e * uk + c * sk + once * kk
    from_u = c * uu + d * us + twice * uk
    from_s = c * us + d * ss + twice * sk
    new_uu = c * from_u + d * from_s + twice * to_uk
    new_us = e * from_u + c * from_s + once * to_uk
    new_ss = e * (e * uu + c * us + once * uk) + c * (e * us + c * ss + once * sk) + once * to_sk
    return u, slope, new_uu, new_us, to_uk, new_ss, to_sk


@triton.jit
def fit_kernel(
    hits,
    hit_count,
    tracks,
    track_count,
    begins,
    found_tracks,
    ACROSS_U: tl.constexpr,
    ACROSS_SLOPE: tl.constexpr,
    ACROSS_K: tl.constexpr,
    ALONG_Z: tl.constexpr,
    ALONG_COT: tl.constexpr,
    LEAST_WEIGHT: tl.constexpr,
    B: tl.constexpr,
):
    """Write u, its slope, k, z, cot, their variances, chi2 and the deviance of tracks [12, T] at the beam line.

    ``hits`` [8, H] and ``tracks`` [5, T] as above; track t has the hits ``begins[t]`` to
    ``begins[t + 1]``, and the filter takes them from the last to the first.
    """
    rows = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = rows < track_count
    begin = tl.load(begins + rows, mask=mask, other=0)
    end = tl.load(begins + rows + 1, mask=mask, other=0)
    k = tl.load(tracks + CURVATURE * track_count + rows, mask=mask, other=0.0)
    cot = tl.load(tracks + COT * track_count + rows, mask=mask, other=0.0)
    slant = 1 + cot * cot
    zero = tl.zeros([B], tl.float64)
    a0, a1, a2, b0, b1 = zero, zero, zero + k, zero, zero
    uu, us, uk = zero + ACROSS_U, zero, zero
    ss, sk, kk = zero + ACROSS_SLOPE, zero, zero + ACROSS_K
    zz, zc, cc = zero + ALONG_Z, zero, zero + ALONG_COT
    chi2, certain = zero, zero  # and the logarithms of the weights of what was measured
    most = tl.max(end - begin, axis=0)
    for step in range(most):
        at = end - 1 - step
        here = mask & (at >= begin)
        # The outermost hit has no way to it: a step of 0 moves nothing.
        moved = here & (step > 0)
        h = tl.load(hits + STEP * hit_count + at, mask=moved, other=0.0)
        once = tl.load(hits + ONCE * hit_count + at, mask=moved, other=0.0)
        twice = tl.load(hits + TWICE * hit_count + at, mask=moved, other=0.0)
        u, slope, n_uu, n_us, n_uk, n_ss, n_sk = move_along(
            a0, a1, a2, uu, us, uk, ss, sk, kk, k, h, once, twice
        )
        z = b0 + h * b1
        n_zz = zz + h * (2 * zc + h * cc)
        n_zc = zc + h * cc
        variance = tl.load(hits + U_VARIANCE * hit_count + at, mask=here, other=1.0)
        weight = 1 / (n_uu + variance)
        off = tl.load(hits + U * hit_count + at, mask=here, other=0.0) - u
        kick = tl.load(hits + KICK * hit_count + at, mask=here, other=0.0)
        a0 = tl.where(here, u + n_uu * (weight * off), a0)
        a1 = tl.where(here, slope + n_us * (weight * off), a1)
        a2 = tl.where(here, a2 + n_uk * (weight * off), a2)
        uu = tl.where(here, n_uu * variance * weight, uu)
        us = tl.where(here, n_us * variance * weight, us)
        uk = tl.where(here, n_uk * variance * weight, uk)
        ss = tl.where(here, n_ss - n_us * n_us * weight + kick * slant, ss)
        sk = tl.where(here, n_sk - n_us * n_uk * weight, sk)
        kk = tl.where(here, kk - n_uk * n_uk * weight, kk)
        chi2 = tl.where(here, chi2 + off * off * weight, chi2)
        certain = tl.where(here, certain + tl.log(tl.maximum(weight, LEAST_WEIGHT)), certain)
        variance = tl.load(hits + V_VARIANCE * hit_count + at, mask=here, other=1.0)
        weight = 1 / (n_zz + variance)
        off = tl.load(hits + V * hit_count + at, mask=here, other=0.0) - z
        b0 = tl.where(here, z + n_zz * (weight * off), b0)
        b1 = tl.where(here, b1 + n_zc * (weight * off), b1)
        zz = tl.where(here, n_zz * variance * weight, zz)
        zc = tl.where(here, n_zc * variance * weight, zc)
        cc = tl.where(here, cc - n_zc * n_zc * weight + kick * slant * slant, cc)
        chi2 = tl.where(here, chi2 + off * off * weight, chi2)
        certain = tl.where(here, certain + tl.log(tl.maximum(weight, LEAST_WEIGHT)), certain)
    h = tl.load(tracks + LAST_STEP * track_count + rows, mask=mask, other=0.0)
    once = tl.load(tracks + LAST_ONCE * track_count + rows, mask=mask, other=0.0)
    twice = tl.load(tracks + LAST_TWICE * track_count + rows, mask=mask, other=0.0)
    u, slope, n_uu, n_us, n_uk, n_ss, n_sk = move_along(
        a0, a1, a2, uu, us, uk, ss, sk, kk, k, h, once, twice
    )
    at = found_tracks + rows
    tl.store(at, u, mask=mask)
    tl.store(at + track_count, slope, mask=mask)
    tl.store(at + 2 * track_count, a2, mask=mask)
    tl.store(at + 3 * track_count, b0 + h * b1, mask=mask)
    tl.store(at + 4 * track_count, b1, mask=mask)
    tl.store(at + 5 * track_count, kk, mask=mask)
    tl.store(at + 6 * track_count, n_ss, mask=mask)
    tl.store(at + 7 * track_count, n_uu, mask=mask)
    tl.store(at + 8 * track_count, zz + h * (2 * zc + h * cc), mask=mask)
    tl.store(at + 9 * track_count, cc, mask=mask)
    tl.store(at + 10 * track_count, chi2, mask=mask)
    tl.store(at + 11 * track_count, chi2 - certain, mask=mask)


START_X, START_Y, START_Z, START_COS, START_SIN, BEND = (tl.constexpr(i) for i in range(6))
END_X, END_Y, END_Z, END_COS, END_SIN, SLOPE, BOUND = (tl.constexpr(i) for i in range(6, 13))
"""Rows of pieces: place and direction of their circle where they begin and end, cot and its upper bound."""


@triton.jit
def offset_from(pieces, count, piece, x, y, mask):
    """Return how far points (mm) are to the left of the circles of pieces."""
    k = tl.load(pieces + BEND * count + piece, mask=mask, other=0.0)
    cos = tl.load(pieces + START_COS * count + piece, mask=mask, other=1.0)
    sin = tl.load(pieces + START_SIN * count + piece, mask=mask, other=0.0)
    dx = x - tl.load(pieces + START_X * count + piece, mask=mask, other=0.0)
    dy = y - tl.load(pieces + START_Y * count + piece, mask=mask, other=0.0)
    ahead = dx * cos + dy * sin
    left = dy * cos - dx * sin
    d = left - 0.5 * k * (ahead * ahead + left * left)
    return 2 * d / (1 + tl.sqrt(tl.maximum(1 - 2 * k * d, 0.0)))


@triton.jit
def near_pieces_kernel(
    pieces,
    first_hit,
    last_hit,
    sizes,
    number,
    event_end,
    piece_count,
    found,
    count,
    room,
    DIRECTION: tl.constexpr,
    NEAR_U: tl.constexpr,
    NEAR_Z: tl.constexpr,
    PER_MM: tl.constexpr,
    TOGETHER: tl.constexpr,
    MOST: tl.constexpr,
    SEARCH: tl.constexpr,
    B: tl.constexpr,
):
    """Append the pairs of pieces (inner * 2^32 + outer) that roughly continue each other.

    ``pieces`` [13, P] are sorted by event and cot; ``first_hit`` and ``last_hit`` are the rows of their hits at
    the ends, ``number`` is the piece's, ``event_end`` where its event ends. A piece is compared with
    up to MOST of higher cot.
    """
    one = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    mask = one < piece_count
    low = one + 1  # the first piece whose cot is beyond the bound
    high = tl.load(event_end + one, mask=mask, other=0)
    bound = tl.load(pieces + BOUND * piece_count + one, mask=mask, other=0.0)
    for _ in tl.static_range(SEARCH):
        middle = (low + high) // 2
        open_ = mask & (low < high)
        inside = tl.load(pieces + SLOPE * piece_count + middle, mask=open_, other=0.0) <= bound
        low = tl.where(open_ & inside, middle + 1, low)
        high = tl.where(open_ & (inside == 0), middle, high)
    many = tl.where(mask, tl.minimum(low - one - 1, MOST), 0)
    first_one = tl.load(first_hit + one, mask=mask, other=0)
    most = tl.max(many, axis=0)
    for step in range(1, most + 1):
        other = one + step
        here = mask & (step <= many)
        swapped = first_one > tl.load(first_hit + other, mask=here, other=0)
        inner = tl.where(swapped, other, one)
        outer = tl.where(swapped, one, other)
        here &= tl.load(last_hit + inner, mask=here, other=0) < tl.load(
            first_hit + outer, mask=here, other=0
        )
        together = tl.load(sizes + inner, mask=here, other=0) + tl.load(
            sizes + outer, mask=here, other=0
        )
        here &= together >= TOGETHER
        if tl.sum(here.to(tl.int32), axis=0) > 0:
            start_x = tl.load(pieces + START_X * piece_count + outer, mask=here, other=0.0)
            start_y = tl.load(pieces + START_Y * piece_count + outer, mask=here, other=0.0)
            start_z = tl.load(pieces + START_Z * piece_count + outer, mask=here, other=0.0)
            end_x = tl.load(pieces + END_X * piece_count + inner, mask=here, other=0.0)
            end_y = tl.load(pieces + END_Y * piece_count + inner, mask=here, other=0.0)
            end_z = tl.load(pieces + END_Z * piece_count + inner, mask=here, other=0.0)
            dx = start_x - end_x
            dy = start_y - end_y
            gap = tl.sqrt(dx * dx + dy * dy)
            cos = tl.load(pieces + END_COS * piece_count + inner, mask=here, other=1.0)
            sin = tl.load(pieces + END_SIN * piece_count + inner, mask=here, other=0.0)
            to_cos = tl.load(pieces + START_COS * piece_count + outer, mask=here, other=1.0)
            to_sin = tl.load(pieces + START_SIN * piece_count + outer, mask=here, other=0.0)
            cot = tl.load(pieces + SLOPE * piece_count + inner, mask=here, other=0.0)
            z = tl.abs(end_z + cot * gap - start_z)
            from_inner = tl.abs(offset_from(pieces, piece_count, inner, start_x, start_y, here))
            from_outer = tl.abs(offset_from(pieces, piece_count, outer, end_x, end_y, here))
            near = here & (dx * cos + dy * sin > 0)
            near &= to_cos * cos + to_sin * sin > DIRECTION
            near &= z < NEAR_Z + PER_MM * gap
            # numpy's minimum is nan where either is.
            within = NEAR_U + PER_MM * gap
            near &= (from_inner < within) | (from_outer < within)
            near &= (from_inner >= 0) & (from_outer >= 0)  # not where either is nan
            pair = tl.load(number + inner, mask=here, other=0) << 32
            pair |= tl.load(number + outer, mask=here, other=0)
            if tl.sum(near.to(tl.int32), axis=0) > 0:
                append(near, pair, found, count, room)
