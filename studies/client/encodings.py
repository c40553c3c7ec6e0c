"""What compact encodings of hits and labels save, and what they cost in time and tracks.

    python -m studies.client.encodings [--events FOLDER]... [--rounds 5] [--out FILE]

Each folder's events (the shipped one of pileup 200 where none is given) are written by each codec and read
back; where positions are rounded, the shipped bundle finds their tracks again, on the CPU, and these
are compared with those of the hits as they were. A hit counts as changed unless its track has the same
hits in both. Writes benchmarks/results/encodings.json.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.client.codecs import HITS, LABELS
from studies.clock import spread
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.report import evaluate_event
from trackserve.event import NO_TRACK, Hits

if TYPE_CHECKING:
    from collections.abc import Callable

    from studies.client.codecs import Codec
    from trackserve.engines.base import Pipeline
    from trackserve.event import Event, Float32, Int64, Tracks

TARGETS = ("headline", "low_pt")


def positions(hits: Hits) -> Float32:
    """Return x, y, z ``[N, 3]``, mm."""
    return np.stack([hits.x, hits.y, hits.z], axis=1)


def finding(pipeline: Pipeline) -> Callable[[Event, Float32], Tracks]:
    """Return what finds the tracks of an event's hits at other positions, each but once."""
    known: dict[bytes, Tracks] = {}

    def find(event: Event, places: Float32) -> Tracks:
        key = hashlib.sha256(places.tobytes()).digest()
        if key not in known:
            x, y, z = np.ascontiguousarray(places.T)
            hits = Hits(event.hits.hit_id, x, y, z, event.hits.modules, event.hits.clusters)
            known[key] = pipeline.find_tracks(hits)
        return known[key]

    return find


def hits_on_other_tracks(labels: Int64, before: Int64) -> int:
    """Return how many hits are on a track, before or now, that hasn't the same hits in the other."""
    pairs, rows, counts = np.unique(
        np.stack([labels, before], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    size = np.bincount(labels + 1)[pairs[:, 0] + 1], np.bincount(before + 1)[pairs[:, 1] + 1]
    same = (counts == size[0]) & (counts == size[1])
    same |= (pairs == NO_TRACK).all(axis=1)
    return int(len(labels) - same[rows.ravel()].sum())


def encodings(folders: list[Path], rounds: int, pipeline: Pipeline) -> dict[str, Any]:
    """Return bytes and processor seconds an event by codec, and the physics, folder by folder."""
    found: dict[str, Any] = {}
    for folder in folders:
        events = [source.read() for source in find_events(folder)]
        find = finding(pipeline)
        tracks = [find(event, positions(event.hits)) for event in events]
        row: dict[str, Any] = {
            "events": len(events),
            "hits": float(np.mean([len(event.hits) for event in events])),
            "hits_on_a_track": float(np.mean([(t.labels != NO_TRACK).mean() for t in tracks])),
        }
        row["hits by codec"] = {
            name: measured([positions(event.hits) for event in events], codec, rounds)
            | physics(events, codec, tracks, find)
            for name, codec in HITS.items()
        }
        row["labels by codec"] = {
            name: measured([each.labels for each in tracks], codec, rounds)
            for name, codec in LABELS.items()
        }
        found[folder.name] = row
    return found


def measured(arrays: list[Any], codec: Codec[Any], rounds: int) -> dict[str, Any]:
    """Return bytes and processor seconds for an array; raises where it doesn't come back."""
    encode, decode, sizes = [], [], []
    for array in arrays * rounds:
        start = time.process_time()
        data = codec.encode(array)
        middle = time.process_time()
        back = codec.decode(data)
        encode.append(middle - start)
        decode.append(time.process_time() - middle)
        sizes.append(len(data))
        np.testing.assert_allclose(back, array, atol=0.5001 * codec.step + 1e-6, rtol=1e-7)
    return {"bytes": float(np.mean(sizes)), "encode": spread(encode), "decode": spread(decode)}


def physics(
    events: list[Event],
    codec: Codec[Float32],
    before: list[Tracks],
    find: Callable[[Event, Float32], Tracks],
) -> dict[str, int]:
    """Return how the targets fare where hits lie where the codec puts them."""
    counts = dict.fromkeys(
        (*(f"{k}_{t}" for t in TARGETS for k in ("found", "total")), "fakes", "tracks", "changed"),
        0,
    )
    for event, tracks in zip(events, before, strict=True):
        found = find(event, codec.decode(codec.encode(positions(event.hits))))
        judged = evaluate_event(event, found)
        for name in TARGETS:
            efficiency = judged.targets[name].efficiency
            counts[f"found_{name}"] += int(efficiency.passed)
            counts[f"total_{name}"] += int(efficiency.total)
        counts["fakes"] += int(judged.fakes.passed)
        counts["tracks"] += int(judged.fakes.total)
        counts["changed"] += hits_on_other_tracks(found.labels, tracks.labels)
    return counts


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, action="append", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--out", type=Path, default=RESULTS / "encodings.json")
    options = parser.parse_args()
    pipeline = open_pipeline(options.bundle)
    folders = options.events or [ROOT / "examples/events/pu200"]
    record = {
        "installation": installation(),
        "bundle": pipeline.bundle.name,
        "rounds": options.rounds,
        "folders": encodings(folders, options.rounds, pipeline),
    }
    write_json(options.out, record)


if __name__ == "__main__":
    main()
