"""Ways to take hits from an event: one part of the detector alone, hits lost at random, dead modules."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trackserve.evaluate.report import pixels_of
from trackserve.event import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trackserve.event import Bool

SEED = 7


def kept(event: Event, rows: Bool) -> Event:
    """Return the event with these hits ``[N]`` alone."""
    chosen = np.flatnonzero(rows)
    truth = None if event.truth is None else event.truth.select(chosen)
    return Event(event.event_id, event.hits.select(chosen), truth)


def without_hits(event: Event, share: float) -> Event:
    """Return the event without this share of its hits, drawn at random."""
    random = np.random.default_rng([SEED, event.event_id])
    return kept(event, random.random(len(event.hits)) >= share)


def without_modules(event: Event, share: float) -> Event:
    """Return the event without the hits of this share of the modules: the same ones in every event.

    Raises ValueError for hits that don't say on which module they lie.
    """
    modules = event.hits.modules
    if modules is None:
        message = f"event {event.event_id} names no modules; expected volume, layer and module ids"
        raise ValueError(message)
    key = np.stack([modules.volume_id, modules.layer_id, modules.module_id]).astype(np.uint64)
    mixed = ((key[0] * 1000 + key[1]) * 10_000 + key[2]) * np.uint64(0x9E3779B97F4A7C15)
    return kept(event, (mixed >> np.uint64(40)) >= share * 2**24)


CHANGES: Mapping[str, Callable[[Event], Event]] = {
    "pixels": pixels_of,
    "2 % of the hits missing": partial(without_hits, share=0.02),
    "5 % of the hits missing": partial(without_hits, share=0.05),
    "5 % dead modules": partial(without_modules, share=0.05),
}
"""By the names that the documents use."""
