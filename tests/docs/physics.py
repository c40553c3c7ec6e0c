"""Measure the shipped bundle for the tables of the documentation, and draw its picture.

    python tests/docs/physics.py "pileup 20=FOLDER" "pileup 200=FOLDER"

Each folder holds events that nothing was trained or chosen on. Writes docs/physics.json (then run
made.py) and docs/images/event.png, which shows the shipped event at pileup 200.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from made import PHYSICS, ROOT
from PIL import Image
from tqdm import tqdm

from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.evaluate.display import draw_event
from trackserve.evaluate.metrics import TARGET_SETS
from trackserve.evaluate.report import Found, evaluate, with_stages
from trackserve.pipeline import Pipeline

if TYPE_CHECKING:
    from trackserve.event import Hits


def measure(pipeline: Pipeline, folder: Path) -> dict[str, object]:
    """Return the evaluation of the events of a folder, with the settings that they were made with."""
    sources = find_events(folder)
    settings = folder / "simulation.json"
    seconds = 0.0

    def find(hits: Hits) -> Found:
        nonlocal seconds
        began = time.process_time()
        found = with_stages(pipeline)(hits)
        seconds += time.process_time() - began
        return found

    bar = tqdm(sources, unit="event", desc=folder.name)
    result = evaluate((source.read() for source in bar), find).to_json()
    for targets in TARGET_SETS:
        del result[targets.name]["bins"]
    del result["definitions"]
    return {
        "simulation": json.loads(settings.read_text())["settings"],
        "first_event": sources[0].event_id,
        "processor_seconds_per_event": round(seconds / len(sources), 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "evaluation": result,
    }


def main(sets: list[str]) -> None:
    """Measure, and draw."""
    bundle = read_bundle()
    pipeline = Pipeline(bundle)
    measured = {
        name: measure(pipeline, Path(folder))
        for name, _, folder in (each.partition("=") for each in sets)
    }
    record = {"bundle": bundle.digest(), "machine": platform.machine(), "sets": measured}
    PHYSICS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (source,) = find_events(ROOT / "examples/events/pu200")
    event = source.read()
    picture = draw_event(
        event.hits,
        pipeline.find_tracks(event.hits),
        ROOT / "docs/images/event.png",
        truth=event.truth,
        title="ttbar at pileup 200",
    )
    # A fifth of the bytes, for who opens the page.
    image = Image.open(picture).convert("RGB").resize((1600, 789), Image.Resampling.LANCZOS)
    image.quantize(192, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
