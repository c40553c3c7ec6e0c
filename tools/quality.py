"""Give a trained bundle a fit, and learn the quality of its tracks on validation events.

    python -m tools.quality BUNDLE EVENTS --like BUNDLE

[fit], [tracks], [budget] and [second_pass] are taken from the bundle of --like: they describe the detector
and how tracks are built, and were chosen once. [quality] is learned from every track that BUNDLE finds in EVENTS,
that of a second pass from what is found after the first.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from trackserve.bundle import BUNDLE_FILE, Bundle, read_bundle
from trackserve.bundle.second_pass import SECOND_PASS
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.errors import TrackserveError
from trackserve.files import write_text
from trackserve.training.quality import calibrated_quality

if TYPE_CHECKING:
    from trackserve.engines.base import Pipeline

TAKEN = ("fit", "tracks", "budget", "quality", SECOND_PASS)
"""The tables that are taken from the other bundle; its quality, until its own is learned."""


def main() -> None:
    """Write the tables into the bundle's description."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder; its bundle.toml is written again")
    parser.add_argument(
        "events", type=Path, help="events with truth that no network was trained on"
    )
    parser.add_argument("--like", type=Path, required=True, metavar="BUNDLE")
    options = parser.parse_args()
    try:
        learn(options.bundle, options.events, options.like)
    except TrackserveError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def learn(folder: Path, events: Path, like: Path) -> None:
    """Take [fit], [tracks], [budget] and [second_pass] from the bundle ``like``, learn [quality], write ``bundle.toml``."""
    model, path = (read_bundle(each).path / BUNDLE_FILE for each in (like, folder))
    taken, written = (tomllib.loads(each.read_text(encoding="utf-8")) for each in (model, path))
    sources = find_events(events)
    provenance = written.pop("provenance", {})
    provenance["quality"] = {"data": events.name, "events": len(sources)}
    written |= {name: taken[name] for name in TAKEN if name in taken}

    def write() -> Bundle:
        write_text(path, tomli_w.dumps({**written, "provenance": provenance}))
        return read_bundle(folder)

    def learned(bundle: Bundle, first: Pipeline | None = None) -> dict[str, float]:
        read = (source.read_columns(bundle.features.wire_columns) for source in sources)
        return asdict(calibrated_quality(open_pipeline(bundle), read, first))

    bundle = write().first_pass
    written["quality"] = learned(bundle)
    second = written.get(SECOND_PASS)
    if second is None:
        write()
        return
    bundle = write()
    assert bundle.second_pass is not None, "it was just written"
    first = open_pipeline(bundle.first_pass)
    second["quality"] = learned(bundle.second_pass, first)
    write()


if __name__ == "__main__":
    main()
