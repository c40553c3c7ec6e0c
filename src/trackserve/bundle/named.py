"""A bundle by a name that its user gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.bundle import read_bundle

if TYPE_CHECKING:
    from trackserve.bundle import Bundle


def split_bundle_name(text: str) -> tuple[str, str]:
    """Return the name and the place in ``NAME=BUNDLE``, no name where there is none."""
    name, equals, place = text.partition("=")
    return (name, place) if equals and not Path(text).exists() else ("", text)


def named_bundle(text: str) -> Bundle:
    """Read the bundle of ``BUNDLE`` or ``NAME=BUNDLE``, which is to go by that name; raises :class:`BundleError`."""
    name, place = split_bundle_name(text)
    bundle = read_bundle(place)
    return replace(bundle, name=name) if name else bundle
