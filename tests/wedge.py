"""Wedges in azimuth of the shipped event at pileup 20: real hits, in numbers that a test has time for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trackserve.data import find_events

SHIPPED = Path(__file__).parents[1] / "examples/events/pu20"


def write_wedge(folder: Path, number: int, *, turn: float = 0.0, half: float = 0.5) -> None:
    """Write the hits within ``half`` of the azimuth ``turn`` (rad), their truth and cells as an event."""
    (source,) = find_events(SHIPPED)
    hits = source.read(truth=False).hits
    kept = set(hits.hit_id[np.abs(np.arctan2(hits.y, hits.x) - turn) < half].tolist())
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("hits", "truth", "particles", "cells"):
        header, *rows = source.file(name).read().decode().splitlines()
        rows = [row for row in rows if name == "particles" or int(row.split(",")[0]) in kept]
        path = folder / f"event{number:09d}-{name}.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
