"""What a new bundle takes over from another one of its detector: all that is neither trained nor chosen."""

from __future__ import annotations

import tomllib
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.bundle.second_pass import SECOND_PASS
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.training.export import write_description
from trackserve.training.quality import calibrated_quality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.data.sources import EventSource
    from trackserve.engines.base import Pipeline
    from trackserve.training.recipe import Recipe

TAKEN = ("fit", "tracks", "budget", "quality", SECOND_PASS)
"""The tables that are taken over; the quality, until the new bundle has learned its own."""


def model_bundle(recipe: Recipe) -> Bundle | None:
    """Return the bundle that the recipe's ``like`` names, None where it names none.

    Raises :class:`InputError` where that is of another detector, whose field and resolutions differ.
    """
    if not recipe.like:
        return None
    bundle = read_bundle(recipe.like)
    if bundle.detector != recipe.detector:
        message = (
            f"the recipe's detector is {recipe.detector!r}, that of the bundle {recipe.like!r}, whose fit it "
            f'takes, is {bundle.detector!r}; name another bundle as `like`, or like = "" for no fit'
        )
        raise InputError(message)
    return bundle


def like(model: Bundle, description: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the description of a bundle with the tables of ``model`` in it, before its provenance."""
    text = (model.path / BUNDLE_FILE).read_text(encoding="utf-8")
    taken = {name: table for name, table in tomllib.loads(text).items() if name in TAKEN}
    own = {"method": recipe.tracks.method, "min_hits": recipe.tracks.min_hits}
    taken["tracks"] = {**taken["tracks"], **own}
    provenance = {**description["provenance"], "like": f"{model.name} {model.digest()}"}
    rest = {name: table for name, table in description.items() if name != "provenance"}
    return {**rest, **taken, "provenance": provenance}


def learn_quality(
    folder: Path, description: Mapping[str, Any], sources: Sequence[EventSource]
) -> dict[str, Any]:
    """Return the description of the bundle in ``folder`` with the quality of the tracks that it finds.

    It is learned from events with truth, that of a second pass from what is found after the first. Warns
    where they don't teach it, as few events may: the quality is then the one that it was.
    """
    learned = dict(description)
    second, provenance = learned.pop(SECOND_PASS, None), learned.pop("provenance")
    bundle = _written(folder, learned)
    if bundle.fit is None:
        return dict(description)
    if own := _quality(bundle, sources):
        learned["quality"] = own
    if second is not None:
        learned[SECOND_PASS] = second
        bundle = _written(folder, learned)
        assert bundle.second_pass is not None, "it was just written"
        if own := _quality(bundle.second_pass, sources, open_pipeline(bundle.first_pass)):
            learned[SECOND_PASS] = {**second, "quality": own}
    return {**learned, "provenance": provenance}


def _written(folder: Path, description: Mapping[str, Any]) -> Bundle:
    write_description(folder, description)
    return read_bundle(folder)


def _quality(
    bundle: Bundle, sources: Sequence[EventSource], first: Pipeline | None = None
) -> dict[str, float] | None:
    read = (source.read_columns(bundle.features.wire_columns) for source in sources)
    try:
        return asdict(calibrated_quality(open_pipeline(bundle), read, first))
    except InputError as error:
        message = f"the quality of tracks stays that of the bundle named `like`: {error}"
        warnings.warn(message, stacklevel=2)
        return None
