"""Give a trained bundle a fit, and learn the quality of its tracks on validation events.

    python -m tools.quality BUNDLE EVENTS --like BUNDLE

[fit] and [tracks] are taken from the bundle of --like: they describe the detector and how tracks are
built, and were chosen once. [quality] is learned from every track that BUNDLE finds in EVENTS.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import replace
from pathlib import Path

import tomli_w

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.bundle.fitting import fitting_tables
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.files import write_text
from trackserve.training.quality import calibrated_quality


def main() -> None:
    """Write the tables into the bundle's description."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder; its bundle.toml is written again")
    parser.add_argument(
        "events", type=Path, help="events with truth that no network was trained on"
    )
    parser.add_argument("--like", type=Path, required=True, metavar="BUNDLE")
    options = parser.parse_args()
    learn(options.bundle, options.events, options.like)


def learn(folder: Path, events: Path, like: Path) -> None:
    """Take [fit] and [tracks] from the bundle ``like``, learn [quality], write ``bundle.toml``."""
    model = read_bundle(like)
    bundle = replace(
        read_bundle(folder),
        fit=model.fit,
        track_builder=replace(model.track_builder, min_quality=0.0),
    )
    sources = find_events(events)
    read = (source.read_columns(bundle.features.wire_columns) for source in sources)
    quality = calibrated_quality(open_pipeline(bundle), read)
    path = folder / BUNDLE_FILE
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    written["tracks"] = tomllib.loads((model.path / BUNDLE_FILE).read_text(encoding="utf-8"))[
        "tracks"
    ]
    provenance = written.pop("provenance", {})
    provenance["quality"] = {"data": events.name, "events": len(sources)}
    tables = fitting_tables(bundle.fit, quality)
    write_text(path, tomli_w.dumps({**written, **tables, "provenance": provenance}))


if __name__ == "__main__":
    main()
