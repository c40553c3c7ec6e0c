"""The score of TrackML's throughput phase: a bundle beside fastrack, the same events in one run.

    python -m studies.physics.throughput EVENTS --fastrack DIR [--simulated DIR] [--events N]

DIR holds fastrack's ``libModel.so``, built from https://github.com/demelian/fastrack, with its
``geometry.bin`` and ``connections.bin``. Both finders get arrays in memory; an event's time is that of the
wall's clock from the arrays to the number of each hit's track, the best of some turns, each finder on the
threads of two cores. Real events come without cells, which fastrack makes use of: every hit is then one cell.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from studies.markdown import markdown
from studies.record import RESULTS, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.evaluate.report import add_up, evaluate_event
from trackserve.event import NO_TRACK, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.event import Clusters, Hits, Int32, Int64

    Find = Callable[[Hits, Clusters | None], Tracks]

RECORD = RESULTS / "throughput.json"
TURNS = 3
LONGEST = 600.0
"""Seconds an event from which the score is 0, as in the challenge."""
LEAST = 0.5
"""Accuracy up to which the score is 0."""
SETS = ("headline", "low_pt", "soft")


def throughput_score(accuracy: float, seconds: float) -> float:
    """Return the score of TrackML's throughput phase (Amrouche et al., arXiv:2105.01160).

    ``accuracy`` is the TrackML score, ``seconds`` the wall's time of an event on two cores.
    """
    if accuracy <= LEAST or seconds >= LONGEST:
        return 0.0
    return math.sqrt(math.log1p(LONGEST / seconds) * (accuracy - LEAST) ** 2)


class Fastrack:
    """The library of fastrack: finds tracks from positions, modules and cells."""

    def __init__(self, folder: Path) -> None:
        library = folder / "libModel.so"
        if not library.exists():
            message = f"{library} does not exist; build fastrack and put its libModel.so there"
            raise InputError(message)
        self._library = ctypes.CDLL(str(library.resolve()))
        create = self._library.createModel
        create.restype = ctypes.c_void_p
        names = [str(folder / name).encode() for name in ("geometry.bin", "connections.bin")]
        self._model = ctypes.c_void_p(
            create(*(each for name in names for each in (name, len(name))))
        )

    def find(self, hits: Hits, clusters: Clusters | None) -> Tracks:
        """Return the tracks of an event; the hits must have modules."""
        if hits.modules is None:
            message = "the hits have no volume, layer and module; fastrack needs them"
            raise InputError(message)
        number = len(hits)
        ids = np.arange(1, number + 1, dtype=np.int32)
        modules = hits.modules
        numbers = (modules.volume_id, modules.layer_id, modules.module_id)
        columns = [
            ids,
            *(np.ascontiguousarray(c, np.float32) for c in (hits.x, hits.y, hits.z)),
            *(np.ascontiguousarray(c, np.int32) for c in numbers),
        ]
        cells = corner_cells(ids, clusters)
        labels = np.zeros(number, np.int32)
        self._library.importHits(self._model, number, *map(_pointer, columns))
        self._library.importCells(self._model, len(cells[0]), *map(_pointer, cells))
        self._library.findTracks(self._model, _pointer(labels))
        return Tracks(without_rest(labels))


def _pointer(column: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(column.ctypes.data)


def corner_cells(ids: Int32, clusters: Clusters | None) -> tuple[Int32, Int32, Int32]:
    """Return hit and channels of two cells a hit, the corners of its cluster: all that fastrack uses."""
    owner = np.repeat(ids, 2)
    channels = np.zeros((2, len(owner)), np.int32)
    if clusters is not None:
        for channel, length in zip(channels, (clusters.length_u, clusters.length_v), strict=True):
            channel[1::2] = np.maximum(length - 1, 0)
    return owner, channels[0], channels[1]


def without_rest(labels: Int32) -> Int64:
    """Return labels from 0 of fastrack's, whose last track holds the hits that are left over."""
    numbers, labels_from_zero = np.unique(labels, return_inverse=True)
    found: Int64 = labels_from_zero.astype(np.int64)
    found[found == len(numbers) - 1] = NO_TRACK
    return found


def measure(finders: dict[str, Find], folder: Path, events: int | None) -> dict[str, Any]:
    """Return what each finder gives on the events of a folder, in turns."""
    found: dict[str, list[Any]] = {name: [] for name in finders}
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    sources = find_events(folder)[:events]
    has_cells = any(folder.glob("*-cells.*"))
    for source in tqdm(sources, unit="event", desc=folder.name):
        event = source.read(cells=has_cells)
        spent: dict[str, list[float]] = {name: [] for name in finders}
        for turn in range(TURNS):
            for name, find in finders.items():
                began = time.perf_counter()
                tracks = find(event.hits, event.hits.clusters if has_cells else None)
                spent[name].append(time.perf_counter() - began)
                if turn == 0:
                    found[name].append(evaluate_event(event, tracks))
        for name, each in spent.items():
            seconds[name].append(min(each))
    return {
        "events": [source.event_id for source in sources],
        "cells": has_cells,
        "finders": {name: _numbers(found[name], seconds[name]) for name in finders},
    }


def _numbers(found: Sequence[Any], seconds: Sequence[float]) -> dict[str, Any]:
    total = add_up(found)
    accuracy, time_of_one = float(np.mean(total.scores)), float(np.mean(seconds))
    return {
        **{name: total.targets[name].efficiency.to_json() for name in SETS},
        "fake_rate": total.fakes.to_json(),
        "duplicate_rate": total.duplicates.to_json(),
        "trackml_score": accuracy,
        "seconds": time_of_one,
        "seconds_of_each": list(seconds),
        "throughput_score": throughput_score(accuracy, time_of_one),
    }


def throughput_table(record: dict[str, Any]) -> str:
    """Return both finders on real and on simulated events."""
    heading = ["events", "finder", "TrackML score", "seconds an event", "throughput score"]
    rates = ["headline, %", "`low_pt`, %", "`soft`, %", "fakes, %"]
    rows = [[*heading, *rates]]
    for sample, measured in record["samples"].items():
        cells = "" if measured["cells"] else ", no cells"
        for name, each in measured["finders"].items():
            values = [100 * each[key]["value"] for key in (*SETS, "fake_rate")]
            rows.append(
                [
                    f"{len(measured['events'])} {sample}{cells}",
                    name,
                    *(f"{each[k]:.3f}" for k in ("trackml_score", "seconds", "throughput_score")),
                    *(f"{value:.1f}" for value in values),
                ]
            )
    return markdown(rows)


TABLES = {"throughput": throughput_table}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description="The throughput score beside fastrack's.")
    parser.add_argument("events", type=Path, metavar="EVENTS", help="a folder of real events")
    parser.add_argument("--simulated", type=Path, help="a folder of simulated events")
    parser.add_argument("--fastrack", type=Path, help="the folder of fastrack's libModel.so")
    parser.add_argument("--bundle", nargs="+", default=["trackml"], help="folders or names")
    parser.add_argument("--events", type=int, dest="limit", help="how many events of each folder")
    parser.add_argument("--threads", type=int, default=2, help="threads of the bundles' engine")
    parser.add_argument("--out", type=Path, default=RECORD, help="where the JSON is written")
    options = parser.parse_args(arguments)
    finders: dict[str, Find] = {}
    for name in options.bundle:
        pipeline = open_pipeline(read_bundle(name), threads=options.threads)
        finders[f"`{name}`"] = lambda hits, _, found=pipeline.find_tracks: found(hits)
    if options.fastrack:
        finders["fastrack"] = Fastrack(options.fastrack).find
    folders = {"real": options.events, "simulated": options.simulated}
    record = {
        "installation": installation(),
        "threads": options.threads,
        "turns": TURNS,
        "bundles": {name: read_bundle(name).digest() for name in options.bundle},
        "samples": {
            name: measure(finders, folder, options.limit)
            for name, folder in folders.items()
            if folder
        },
    }
    write_json(options.out, record)
    print(throughput_table(record))


if __name__ == "__main__":
    main()
