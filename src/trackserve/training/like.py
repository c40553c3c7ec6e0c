"""What a new bundle takes over from another one of its detector: what was chosen by hand, and not trained."""

from __future__ import annotations

import tomllib
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trackserve.bundle import BUNDLE_FILE, read_bundle, shipped_bundles
from trackserve.bundle.second_pass import SECOND_PASS
from trackserve.engines.registry import open_pipeline
from trackserve.errors import BundleError, InputError
from trackserve.training.export import write_description
from trackserve.training.quality import UnlearnableError, calibrated_quality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.data.sources import EventSource
    from trackserve.engines.base import Pipeline
    from trackserve.training.recipe import Recipe

TAKEN = ("fit", "tracks", "budget", "extent", "quality", SECOND_PASS)
"""The tables that are taken over; the quality, until the new bundle has learned its own."""


def model_bundle(recipe: Recipe) -> Bundle | None:
    """Return the bundle that the recipe's ``like`` names, None where it names none.

    The name of one that ships goes before a folder of that name. Raises :class:`InputError` for a bundle
    that can't be read, that has no fit, is of another detector, or whose fit the recipe's tracks are too short for.
    """
    if not recipe.like:
        return None
    shipped = {path.name: path for path in shipped_bundles()}
    named = f"the recipe's like is {recipe.like!r}"
    try:
        bundle = read_bundle(shipped.get(recipe.like, recipe.like))
        own = replace(
            bundle.track_builder, method=recipe.tracks.method, min_hits=recipe.tracks.min_hits
        )
        replace(bundle, track_builder=own, second_pass=None)  # checks that they go together
    except BundleError as error:
        message = f'{named}: {error}; like = "" takes nothing over'
        raise InputError(message) from None
    if bundle.detector != recipe.detector:
        message = (
            f"{named}, a bundle of the detector {bundle.detector!r}; the recipe's detector is "
            f'{recipe.detector!r}: name a bundle of that one, or like = "" for no fit'
        )
        raise InputError(message)
    if bundle.fit is None:
        message = f'{named}, which has no [fit] to take over; name another, or like = "" for no fit'
        raise InputError(message)
    return bundle


def with_tables_of(model: Bundle, description: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the description of a bundle with the tables of ``model`` in it, before its provenance."""
    text = (model.path / BUNDLE_FILE).read_text(encoding="utf-8")
    taken = {name: table for name, table in tomllib.loads(text).items() if name in TAKEN}
    own = {"method": recipe.tracks.method, "min_hits": recipe.tracks.min_hits}
    taken["tracks"] = {**taken["tracks"], **own}
    provenance = {**description["provenance"], "like": f"{model.name} {model.digest()}"}
    rest = {name: table for name, table in description.items() if name != "provenance"}
    return {**rest, **taken, "provenance": provenance}


def with_quality(
    folder: Path, description: Mapping[str, Any], sources: Sequence[EventSource]
) -> dict[str, Any]:
    """Return the description of the bundle in ``folder`` with the quality of the tracks that it finds.

    It is learned from events with truth, that of a second pass from what is found after the first. Warns
    where they don't teach it, as few events may: the quality is then the one that it was.
    """
    learned = dict(description)
    second, provenance = learned.pop(SECOND_PASS, None), learned.pop("provenance")
    own = _quality(_written(folder, learned), sources, "the tracks")
    if own is not None:
        learned["quality"] = own
    if second is not None:
        learned[SECOND_PASS] = second
        bundle = _written(folder, learned)
        assert bundle.second_pass is not None, "it was just written"
        first = open_pipeline(bundle.first_pass)
        own = _quality(bundle.second_pass, sources, "the second pass's tracks", first)
        if own is not None and "quality" in learned:
            learned[SECOND_PASS] = {**second, "quality": own}
    return {**learned, "provenance": provenance}


def _written(folder: Path, description: Mapping[str, Any]) -> Bundle:
    write_description(folder, description)
    return read_bundle(folder)


def _quality(
    bundle: Bundle, sources: Sequence[EventSource], whose: str, first: Pipeline | None = None
) -> dict[str, float] | None:
    """Return what a pass learns; None, with a warning, where the events don't teach it."""
    read = (source.read_columns(bundle.features.wire_columns) for source in sources)
    try:
        return asdict(calibrated_quality(open_pipeline(bundle), read, first))
    except UnlearnableError as error:
        cut, by = bundle.track_builder.cut, "" if first is None else " by the second pass"
        message = (
            f"the quality of {whose} is that of the bundle named `like`, if it has one: {error}"
        )
        if error.tracks == 0:
            message = (
                f"no tracks were found in the validation events{by}; the cut of {cut:g} on the scores of "
                "edges, taken over from the bundle named `like`, may be too high for these networks"
            )
        warnings.warn(message, stacklevel=3)
        return None
