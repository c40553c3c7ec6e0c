"""The physics of the shipped bundles on real TrackML events, and on simulated ones of the same kind.

    python -m studies.physics.real EVENTS [--simulated DIR] [--bundles NAME ...] [--limit N]

Judges each bundle on whole events and on the pixel detector alone; the first one also on simulated
events with missing hits, dead modules and a moved beam spot, with ACTS' Kalman filter beside it.
What each event gave is kept in --work, so a stopped run goes on. Real events that come without truth
have near-truth: the listed particles followed through the measured field.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.physics.ckf import CONFIGURATIONS
from studies.physics.judge import BundleFinder, Job, Judged, KalmanFinder, judge
from studies.physics.pictures import draw_shipped_event
from studies.physics.real_tables import REAL
from studies.physics.report import numbers, ratio
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.data.simulate import simulate
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.metrics import HARD_PT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORD = RESULTS / "real.json"
BUNDLES = ("trackml", "trackml-fast", "hl-lhc")
SEED, EVENTS = 505, 12
"""Of the simulated events; nothing was trained or chosen on them."""
FEW = 3
"""Simulated events that are changed, too: the first ones."""
STAGED = 5
"""Real events whose edges are counted stage by stage, too: the first ones."""
LOSSES = ("2 % of the hits missing", "5 % of the hits missing", "5 % dead modules")
HIT_RANGES = {
    "3": (3, 3),
    "4": (4, 4),
    "5": (5, 5),
    "6": (6, 6),
    "7-9": (7, 9),
    "10 or more": (10, 99),
}


def main() -> None:
    """Judge what is not judged yet, print the tables, write the record."""
    parser = argparse.ArgumentParser(prog="python -m studies.physics.real", description=__doc__)
    parser.add_argument("events", type=Path, help="folder of events in TrackML's format")
    parser.add_argument(
        "--simulated", type=Path, help="folder of simulated events (made if not given)"
    )
    parser.add_argument(
        "--moved", type=Path, help="the same, beam spot off by 1 mm (made if not given)"
    )
    parser.add_argument("--bundles", nargs="+", default=BUNDLES, metavar="BUNDLE")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/real", help="what each event gave"
    )
    parser.add_argument("--limit", type=int, help="events of each folder, for a first look")
    parser.add_argument(
        "--acts", type=int, default=3, help="events that the Kalman filter is given"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RECORD)
    options = parser.parse_args()
    simulated = options.simulated or _simulated("simulated", EVENTS, options.workers)
    moved = options.moved or _simulated(
        "moved", FEW, options.workers, beam_spot_offset=(1.0, 0.0, 0.0)
    )
    folders = {"real": options.events, "simulated": simulated, "moved": moved}
    wanted = jobs(folders, options.bundles, limit=options.limit, acts=options.acts)
    judged = dict(
        zip(wanted, judge(list(wanted.values()), options.work, options.workers), strict=True)
    )
    record = report(judged, options.bundles)
    write_json(options.json, record)
    if options.json == RECORD:
        draw_shipped_event(open_pipeline(read_bundle()), ROOT / "docs/images/event.png")
    for name, make in REAL.items():
        print(f"\n{name}\n\n{make(record)}")


def _simulated(name: str, events: int, workers: int, **settings: Any) -> Path:
    folder = ROOT / "data/real" / name
    simulate(folder, events=events, seed=SEED, workers=workers, form="parquet", **settings)
    return folder


Key = tuple[str, str, str]
"""The finder, the events and how they are changed."""


def jobs(
    folders: Mapping[str, Path], bundles: Sequence[str], *, limit: int | None, acts: int
) -> dict[Key, Job]:
    """Return what is judged, the most important first."""
    wanted: dict[Key, Job] = {}
    for bundle in bundles:
        finder = BundleFinder(Path(bundle), staged=False)
        pixels = BundleFinder(Path(bundle), change="pixels", staged=False)
        for name in events_of(bundle):
            folder = folders[name]
            wanted[bundle, name, ""] = Job(finder, folder, limit)
            wanted[bundle, name, "pixels"] = Job(pixels, folder, limit)
        if bundle == bundles[0]:
            few, staged = min(FEW, limit or FEW), min(STAGED, limit or STAGED)
            wanted[bundle, "real", "stages"] = Job(
                BundleFinder(Path(bundle)), folders["real"], staged
            )
            wanted[bundle, "moved", ""] = Job(
                BundleFinder(Path(bundle), staged=False), folders["moved"], few
            )
            for change in LOSSES:
                changed = BundleFinder(Path(bundle), change=change, staged=False)
                wanted[bundle, "simulated", change] = Job(changed, folders["simulated"], few)
            for name in ("best", "fast") if acts else ():
                wanted[f"ACTS, {name}", "simulated", ""] = Job(
                    KalmanFinder(f"{name}, trackml"), folders["simulated"], acts
                )
    return wanted


def events_of(bundle: str) -> tuple[str, ...]:
    """Return which events a bundle is judged on: not on simulated ones if made for other conditions."""
    return ("real",) if bundle == "hl-lhc" else ("real", "simulated")


def report(judged: dict[Key, Judged], bundles: Sequence[str]) -> dict[str, Any]:
    """Return everything that was measured, as nested dicts."""
    nominal = judged[bundles[0], "simulated", ""]
    changed = {
        **{name: judged[bundles[0], "simulated", name] for name in LOSSES},
        "beam spot off by 1 mm": judged[bundles[0], "moved", ""],
    }
    peers = {name: each for (name, _, _), each in judged.items() if name.startswith("ACTS")}
    chosen = list(next(iter(peers.values())).events) if peers else []
    return {
        **installation(),
        "bundles": {
            name: {
                "digest": read_bundle(name).digest(),
                **{
                    events: {
                        **counted(judged[name, events, ""]),
                        "pixels": counted(judged[name, events, "pixels"]),
                    }
                    for events in events_of(name)
                },
                **(
                    {"staged": counted(judged[name, "real", "stages"])}
                    if name == bundles[0]
                    else {}
                ),
            }
            for name in bundles
        },
        "changed": {
            name: {"nominal": counted(nominal, list(each.events)), **counted(each)}
            for name, each in changed.items()
        },
        "acts": {
            "bundle": counted(nominal, chosen),
            **{
                name.removeprefix("ACTS, "): {
                    "configuration": {
                        "pyacts": metadata.version("pyacts"),
                        **asdict(CONFIGURATIONS[f"{name.removeprefix('ACTS, ')}, trackml"]),
                    },
                    **counted(each),
                }
                for name, each in peers.items()
            },
        }
        if peers
        else {},
    }


def counted(judged: Judged, chosen: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the numbers of a finder, with the headline efficiency by the number of hits."""
    total = judged.together(chosen)
    hits = total.targets["headline"].bins["hits"]
    first = np.round(hits.edges[:-1] + 0.5)
    by_hits = {}
    for name, (low, high) in HIT_RANGES.items():
        inside = (first >= low) & (first <= high)
        found = Ratio(int(hits.passed[inside].sum()), int(hits.total[inside].sum()))
        by_hits[name] = ratio("efficiency", found)
    return {
        **numbers(judged, chosen),
        **ratio("hard_fake_rate", total.hard_fakes),
        "hard_pt": HARD_PT,
        "by_hits": by_hits,
    }


if __name__ == "__main__":
    main()
