"""The physics of a bundle on real TrackML events, on whole events and on the pixel detector alone.

    python -m studies.physics.real EVENTS [--bundle DIR] [--out FILE]

Real events that come without truth have near-truth: the listed particles followed through the
measured field. What that limits is printed below the tables.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from studies.record import installation, write_json
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.report import (
    add_up,
    definitions_text,
    evaluate_event,
    pixels_of,
    with_stages,
)

if TYPE_CHECKING:
    from trackserve.bundle import Bundle
    from trackserve.evaluate.report import Evaluation

LIMITS = """\
Limits of near-truth: of the particles above 0.9 GeV 97 % have at most one hit too many or too few, from 0.5
to 0.9 GeV 92 %, from 0.3 to 0.5 GeV 73 %, from 0.15 to 0.3 GeV 57 %; produced 2 to 30 mm from the beam line
64 %, farther 58 %. So efficiencies are good to about half a point above 0.9 GeV and one point above 0.5 GeV.
Tracks of particles that were not followed well look like fakes: fake rates are upper bounds. The weights of
the TrackML score are those of near-truth."""


def main() -> None:
    """Judge a bundle and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m studies.physics.real", description=__doc__)
    parser.add_argument("events", type=Path, help="folder of events in TrackML's format")
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--out", type=Path, help="JSON file for every number")
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    record: dict[str, object] = {"bundle": bundle.digest, **installation(), "limits": LIMITS}
    for name, pixels in (("whole events", False), ("the pixel detector alone", True)):
        found, seconds = judged(bundle, options.events, pixels=pixels)
        print(f"\n== {name}: {seconds:.2f} processor seconds an event\n\n{found.table()}")
        record[name] = {"processor_seconds": seconds, **found.to_json()}
    print(f"\n{definitions_text()}\n\n{LIMITS}")
    if options.out is not None:
        write_json(options.out, record)


def judged(bundle: Bundle, events: Path, *, pixels: bool) -> tuple[Evaluation, float]:
    """Return the evaluation of a bundle on a folder of events, and processor seconds an event."""
    pipeline = open_pipeline(bundle, engine="auto", threads=1)
    find = with_stages(pipeline)
    sources = find_events(events)
    results = []
    spent = 0.0
    for source in tqdm(sources, desc="pixels" if pixels else "events", unit="event"):
        event = source.read_columns(bundle.features.wire_columns)
        event = pixels_of(event) if pixels else event
        start = time.process_time()
        pipeline.find_tracks(event.hits)
        spent += time.process_time() - start
        results.append(evaluate_event(event, find(event.hits)))
    return add_up(results), spent / len(sources)


if __name__ == "__main__":
    main()
