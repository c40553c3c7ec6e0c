"""Which events a training learns from, chooses its cuts on, and is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trackserve.data.sources import EventSource
    from trackserve.event import Event, Truth
    from trackserve.training.recipe import Recipe


def split(
    sets: Sequence[Sequence[EventSource]], recipe: Recipe
) -> tuple[list[EventSource], list[EventSource], list[EventSource]]:
    """Return the events for training, validation and test: the last ones of each set are apart."""
    parts: tuple[list[EventSource], list[EventSource], list[EventSource]] = ([], [], [])
    for events in sets:
        validation = max(1, round(recipe.validation * len(events)))
        test = max(1, round(recipe.test * len(events)))
        train = len(events) - validation - test
        if train < 1:
            message = f"a data set has {len(events)} events; training needs at least three of each"
            raise InputError(message)
        parts[0].extend(events[:train])
        parts[1].extend(events[train : train + validation])
        parts[2].extend(events[train + validation :])
    return parts


def truth_of(event: Event) -> Truth:
    """Return the truth of an event; raises :class:`InputError` where it has none."""
    if event.truth is None:
        message = f"event {event.event_id} has no truth; training needs particles and truth files"
        raise InputError(message)
    return event.truth


def data_set(source: EventSource) -> str:
    """Return the name of the folder or archive that an event lies in."""
    return Path(source.prefix).parent.name


def by_data_set(sources: Iterable[EventSource]) -> dict[str, list[EventSource]]:
    """Return the events of each data set, by its name."""
    sets: dict[str, list[EventSource]] = {}
    for source in sources:
        sets.setdefault(data_set(source), []).append(source)
    return sets
