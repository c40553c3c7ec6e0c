"""What the service withstands, and what its guard costs; each writes JSON beside the other results.

python -m studies.reliability guard [--repeats 8]
python -m studies.reliability [--seed 1] fuzz --minutes 10 [--add]
python -m studies.reliability soak --hours 1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.data import find_events

if TYPE_CHECKING:
    from trackserve.bundle import Bundle
    from trackserve.event import Hits

EVENTS = ROOT / "examples/events"


def wedge(hits: Hits, count: int) -> Hits:
    """Return about ``count`` hits of an event, those of a wedge in phi: whole tracks, most of them."""
    phi = np.arctan2(hits.y, hits.x)
    return hits.select(np.flatnonzero(phi <= np.sort(phi)[min(count, len(phi)) - 1]))


def example(bundle: Bundle, kind: str) -> Hits:
    """Return the example event of this kind with the columns that the bundle takes."""
    source = find_events(EVENTS / kind)[0]
    return source.read_columns(bundle.features.wire_columns, truth=False).hits


def guard(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the guard costs."""
    from studies.reliability.guard import LIMITS, guard_cost  # noqa: PLC0415

    bundle = read_bundle(options.bundle)
    pu200, pu20 = example(bundle, "pu200"), example(bundle, "pu20")
    features = bundle.features
    events = {
        kind: hits.table(features.wire_columns, features.absent)
        for kind, hits in (("pu200", pu200), ("small", wedge(pu20, 1321)))
    }
    found = guard_cost(bundle, events, repeats=options.repeats, seconds=options.seconds)
    return {"limits": LIMITS, **found}


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Send hostile requests, then read hostile files and bundles."""
    from studies.reliability.files import file_campaign  # noqa: PLC0415
    from studies.reliability.fuzz import campaign  # noqa: PLC0415

    bundle = read_bundle(options.bundle)
    hits = wedge(example(bundle, "pu20"), 300)
    kept = options.kept.absolute()
    found = campaign(
        bundle, hits, minutes=0.8 * options.minutes, seed=options.seed, kept=kept, most=options.most
    )
    files = file_campaign(bundle, minutes=0.2 * options.minutes, seed=options.seed, kept=kept)
    ended = datetime.now(UTC).isoformat(timespec="minutes")
    return {
        "seed": options.seed,
        "minutes": options.minutes,
        "ended": ended,
        "requests": found,
        **files,
    }


def together(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the sums of this campaign and those before it; how memory went stays that of each."""
    total = dict(before["total"])
    for kind in ("requests", "files", "bundles"):
        counts = {
            name: count
            for name, count in found[kind].items()
            if isinstance(count, int) and not isinstance(count, bool)
        }
        total[kind] = dict(Counter(total.get(kind, {})) + Counter(counts))
    total["minutes"] = total.get("minutes", 0.0) + found["minutes"]
    return {"total": total, "campaigns": [*before["campaigns"], found]}


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Use a fleet for hours as the world does."""
    from studies.reliability.soak import soak as run  # noqa: PLC0415

    bundle = read_bundle(options.bundle)
    pu20 = example(bundle, "pu20")
    sizes = [wedge(pu20, count) for count in (20, 300, 1300, 5000)]
    return run(
        bundle,
        [*sizes, pu20],
        hours=options.hours,
        seed=options.seed,
        folder=options.kept.absolute(),
    )


def fuzz_failed(found: dict[str, Any]) -> bool:
    """Whether anything went wrong in a campaign."""
    requests = found["requests"]
    return bool(
        requests["fault_count"]
        or not all(requests["same_processes"].values())
        or found["files"]["fault_count"]
        or found["bundles"]["fault_count"]
    )


def main() -> None:
    """Run one of them, write and print its result; exit with 1 if something gave way."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.reliability", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, metavar="JSON")
    parser.add_argument(
        "--kept",
        type=Path,
        default=ROOT / "runs/reliability",
        metavar="DIR",
        help="logs and what failed",
    )
    parser.add_argument("--seed", type=int, default=1)
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    one = what.add_parser("guard", help="what the guard costs")
    one.add_argument("--repeats", type=int, default=8, metavar="N")
    one.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="a measurement of throughput"
    )
    one = what.add_parser("fuzz", help="hostile requests, files and bundles")
    one.add_argument("--minutes", type=float, default=10.0, metavar="N")
    one.add_argument(
        "--add", action="store_true", help="add to the result that is there; take another seed then"
    )
    one.add_argument(
        "--most", type=int, default=10**9, metavar="N", help="requests of each of the four lanes"
    )
    one = what.add_parser("soak", help="hours of mixed use")
    one.add_argument("--hours", type=float, default=1.0, metavar="H")
    options = parser.parse_args()
    found = {"guard": guard, "fuzz": fuzz, "soak": soak}[options.what](options)
    output = options.output or RESULTS / f"{options.what}.json"
    record = found
    if options.what == "fuzz":
        before = {"total": {}, "campaigns": []}
        if options.add and output.is_file():
            before = json.loads(output.read_text(encoding="utf-8"))
        record = together(before, found)
    write_json(output, {"installation": installation(), **record})
    print(json.dumps(found, indent=1))
    if options.what == "fuzz" and fuzz_failed(found):
        sys.exit(1)


if __name__ == "__main__":
    main()
