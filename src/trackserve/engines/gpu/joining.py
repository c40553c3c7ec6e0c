"""Join the pieces of one track on the device, as pipeline/joining.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.engines.gpu.components import NO_TRACK, best_steps, components, number_sets
from trackserve.engines.gpu.fit import circles, fit_tracks
from trackserve.engines.gpu.kernels.fit import near_pieces_kernel
from trackserve.engines.gpu.launch import blocks, rows
from trackserve.engines.gpu.lists import Room, begins, sort
from trackserve.pipeline.joining import (
    FEWEST_TOGETHER,
    MOST_NEAR,
    NEAR_COT,
    NEAR_DIRECTION,
    NEAR_U,
    NEAR_Z,
)

if TYPE_CHECKING:
    from trackserve.engines.gpu.fit import Circles, Detector, Fits, Points
    from trackserve.engines.gpu.lists import Pairs

PIECES = rows(32)
"""Pieces of a program."""
WARPS = 1
NEAR = {
    "DIRECTION": NEAR_DIRECTION,
    "NEAR_U": NEAR_U[0],
    "NEAR_Z": NEAR_Z[0],
    "PER_MM": NEAR_Z[1],
    "TOGETHER": FEWEST_TOGETHER,
    "MOST": MOST_NEAR,
}
"""The kernel's cuts."""
PAIRS_A_PIECE = 16
"""There is room for this number at first."""
FITTED_BYTES = 512
"""Bytes that a hit of a track takes while it is fitted."""
assert NEAR_U[1] == NEAR_Z[1], "the kernel takes one slope for both"


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces as lists of hits: piece t has the hits ``rows[begin[t]:begin[t + 1]]``, outwards."""

    rows: Tensor
    begin: Tensor

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.begin) - 1

    @classmethod
    def of(cls, labels: Tensor) -> Pieces:
        """Return the pieces of labels ``[N]`` that number them without gaps; -1 is on none."""
        at = torch.nonzero(labels > NO_TRACK).flatten()
        in_order = torch.sort(labels[at], stable=True)
        count = int(in_order.values[-1]) + 1 if len(at) else 0
        return cls(at[in_order.indices], begins(in_order.values, count))

    @property
    def first(self) -> Tensor:
        """The row of each piece's innermost hit ``[T]``."""
        return self.rows[self.begin[:-1]]

    @property
    def last(self) -> Tensor:
        """The row of each piece's outermost hit ``[T]``."""
        return self.rows[self.begin[1:] - 1]

    def take(self, pieces: Tensor, what: str, room: Room) -> Pieces:
        """Return these pieces, to be fitted; ``what`` they are stands in a message.

        Raises :class:`InputError` where their hits are too many for that.
        """
        hits = self.begin.diff()[pieces]
        begin = torch.cat([hits.new_zeros(1), torch.cumsum(hits, 0)])
        total = int(begin[-1])
        room.check(what, total, FITTED_BYTES)
        piece = torch.repeat_interleave(hits, output_size=total)
        source = (self.begin[pieces] - begin[:-1])[piece]
        return Pieces(self.rows[source + torch.arange(total, device=source.device)], begin)

    def joined(self, inner: Tensor, outer: Tensor, what: str, room: Room) -> Pieces:
        """Return a piece for each pair ``[K]`` with the hits of both, as :meth:`take`."""
        both = self.take(torch.stack([inner, outer], dim=1).flatten(), what, room)
        return Pieces(both.rows, both.begin[::2].contiguous())

    def and_hits(self, hits: Tensor) -> Pieces:
        """Return these pieces, and behind them each of these hits ``[K]`` as a piece."""
        one_each = torch.arange(1, len(hits) + 1, device=hits.device)
        begin = torch.cat([self.begin, self.begin[-1] + one_each])
        return Pieces(torch.cat([self.rows, hits]), begin)


def join_pieces(
    points: Points,
    labels: Tensor,
    event: Tensor,
    *,
    most_chi2: float,
    detector: Detector,
    room: Room,
) -> Tensor:
    """Return the labels ``[N]`` after pieces of one track are joined; numbered by the innermost hit."""
    pieces = Pieces.of(labels)
    if len(pieces) < 2:
        return labels
    of_pieces = points.take(pieces.rows)
    circle = circles(of_pieces, pieces.begin)
    alone = fit_tracks(of_pieces, pieces.begin, detector, circle)
    near = near_pieces(points, pieces, circle, alone, event=event, room=room)
    inner, outer = near.first, near.second
    pairs = pieces.joined(inner, outer, "hits of pieces of tracks that may be one", room)
    together = fit_tracks(points.take(pairs.rows), pairs.begin, detector)
    rise = together.chi2 - alone.chi2[inner] - alone.chi2[outer]
    small = rise < most_chi2
    inner, outer, rise = inner[small], outer[small], rise[small]
    # The best first: pairs are sorted by their pieces, which breaks ties.
    order = torch.sort(rise, stable=True).indices
    inner, outer = inner[order], outer[order]
    key = torch.arange(len(order), 0, -1, device=order.device)
    taken = best_steps(inner, outer, key)
    number = number_sets(components(inner[taken], outer[taken], len(pieces)), 1)
    return torch.where(labels > NO_TRACK, number[labels], NO_TRACK)


def near_pieces(
    points: Points, pieces: Pieces, circle: Circles, fits: Fits, *, event: Tensor, room: Room
) -> Pairs:
    """Return the inner and the outer piece of each pair that may be one track, sorted."""
    every = torch.arange(len(pieces), device=event.device)
    first, last = pieces.first, pieces.last
    end = circle.project(every, points.x[last], points.y[last])
    bound = fits.cot + NEAR_COT * torch.sqrt(1 + fits.cot * fits.cot)
    numbers = torch.stack(
        [
            *(circle.x, circle.y, points.z[first], torch.cos(circle.phi), torch.sin(circle.phi)),
            *(circle.curvature, points.x[last], points.y[last], points.z[last]),
            *(end.cos, end.sin, fits.cot, bound),
        ]
    )
    by_cot = torch.sort(fits.cot, stable=True).indices
    by_cot = by_cot[torch.sort(event[first[by_cot]], stable=True).indices]
    events = event[first[by_cot]]
    event_end = torch.searchsorted(events, events, right=True)
    numbers = numbers[:, by_cot].contiguous()

    def fill(entries: Tensor, count: Tensor, places: int) -> None:
        near_pieces_kernel[blocks(len(pieces), PIECES)](
            numbers,
            first[by_cot],
            last[by_cot],
            pieces.begin.diff()[by_cot],
            by_cot,
            event_end,
            len(pieces),
            entries,
            count,
            places,
            **NEAR,
            SEARCH=len(pieces).bit_length(),
            B=PIECES,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )

    return sort(room.take("pairs of pieces of tracks", PAIRS_A_PIECE * len(pieces), fill))
