"""Lists on the device whose length a kernel finds out: pairs, edges, triplets.

An entry is an int64, ``first * 2^32 + second``, so that sorting puts a list in the reference's order.
A list has room for a number of entries, fixed before it is filled, and a count on the device. Those who
fill it count on when it is full, so the count is always what room there should have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY_BYTES = 128
"""Bytes that an entry takes at most: its list, a sorted copy, indices, and a state of a network."""
BEHIND = 2**63 - 1
"""Stands behind the last entry once a list is sorted."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Entries int64 ``[room]``, of which the first ``count`` ``[1]`` are filled."""

    entries: Tensor
    count: Tensor

    @property
    def first(self) -> Tensor:
        """The first row of each entry ``[room]``."""
        return self.entries >> 32

    @property
    def second(self) -> Tensor:
        """The second row of each entry ``[room]``."""
        return self.entries & 0xFFFFFFFF

    def filled(self) -> Tensor:
        """Return which entries ``[room]`` are filled."""
        return torch.arange(len(self.entries), device=self.entries.device) < self.count


@dataclass(frozen=True, eq=False)
class Kept:
    """Where a network's kernel appends what has a logit of at least ``least``."""

    least: float
    entries: Tensor
    count: Tensor
    room: int


@dataclass(frozen=True)
class Room:
    """How much memory lists may take: bounded before it is spent.

    ``bytes`` is what the lists of an event may take together; an entry takes ENTRY_BYTES, with what
    is made of it later.
    """

    bytes: int
    device: str

    @property
    def entries(self) -> int:
        """The most entries that one list may hold."""
        return self.bytes // ENTRY_BYTES

    def check(self, what: str, count: int, bytes_each: int) -> None:
        """Raise :class:`InputError` if that many entries would take more memory than there is."""
        if count * bytes_each > self.bytes:
            raise InputError(self._too_many(what, count, self.bytes // bytes_each))

    def take(self, what: str, guess: int, fill: Callable[[Tensor, Tensor, int], None]) -> Pairs:
        """Fill a list that has room for ``guess`` entries, and again with enough room if that was too little.

        ``fill`` takes the entries, the count and the room. Raises :class:`InputError` for a list that
        would need more than there is.
        """
        room = max(1, min(guess, self.entries))
        for _ in range(2):
            entries = torch.empty(room, dtype=torch.int64, device=self.device)
            count = torch.zeros(1, dtype=torch.int64, device=self.device)
            fill(entries, count, room)
            needed = int(count)
            if needed <= room:
                return Pairs(entries[:needed], count)
            if needed > self.entries:
                break
            room = needed
        raise InputError(self._too_many(what, needed, self.entries))

    def _too_many(self, what: str, found: int, most: int) -> str:
        return (
            f"this event has {found:,} {what}, and {self.device} has room for {most:,}; "
            "send the hits of one event, in the units and columns that the bundle expects"
        )


def sort(pairs: Pairs) -> Pairs:
    """Return the entries sorted by their first, then their second row."""
    entries = torch.where(pairs.filled(), pairs.entries, BEHIND)
    return Pairs(torch.sort(entries).values, pairs.count)


def begins(sorted_rows: Tensor, rows: int) -> Tensor:
    """Return where the entries of each of ``rows`` rows begin ``[rows + 1]``, the last one where all end."""
    each = torch.arange(rows + 1, device=sorted_rows.device, dtype=sorted_rows.dtype)
    return torch.searchsorted(sorted_rows, each)
