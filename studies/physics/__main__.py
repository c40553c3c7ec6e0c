"""The physics of the bundle hl-lhc on simulated events, beside ACTS' Kalman filter on the very same events.

    python -m studies.physics [--events FOLDER] [--data DIR] [--workers N] [--limit N] [--engines]

Judges the bundle on unseen events at pileup 200 and 20, on events of other conditions, with x, y, z
alone and on the reference engine, and the Kalman filter on the same. Events that are not in DIR are
simulated. Writes benchmarks/results/physics.json (ratios as fractions, each with its 68.3 % interval) and the
pictures of the documentation, and prints its tables; `python -m tools.documents` puts them there.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from studies.physics.judge import judge
from studies.physics.pictures import draw_plots
from studies.physics.plan import ELSEWHERE, ENGINES, MAIN, PILEUP_20, Plan
from studies.physics.report import engines, report
from studies.physics.tables import TABLES
from studies.record import RESULTS, ROOT, write_json

RESULT = RESULTS / "physics.json"


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.physics", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--events", type=Path, help="nominal events (default: DIR/test200)")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="events are here, or made"
    )
    parser.add_argument("--bundle", type=Path, default=Path("hl-lhc"))
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N events of each kind")
    parser.add_argument(
        "--engines",
        action="store_true",
        help="compare the engines; keep the other numbers as written",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/physics"), help="results event by event"
    )
    parser.add_argument("--json", type=Path, default=RESULT, help="where the numbers go")
    parser.add_argument("--images", type=Path, default=ROOT / "docs/images")
    return parser.parse_args()


def main() -> None:
    """Judge, write and print."""
    options = parse()
    data, workers = options.data, options.workers
    plan = Plan(
        main=options.events or MAIN.ready(data / MAIN.name, workers),
        pileup_20=data / PILEUP_20.name,
        elsewhere={
            name: sample.ready(data / "elsewhere" / sample.name, workers)
            for name, sample in ({} if options.engines else ELSEWHERE).items()
        },
        bundle=options.bundle,
        limit=options.limit,
    )
    jobs = plan.jobs()
    if options.engines:
        jobs = {name: jobs[name] for name in ENGINES}
    else:
        PILEUP_20.ready(plan.pileup_20, workers)
    judged = dict(zip(jobs, judge(list(jobs.values()), options.work, workers), strict=True))
    if options.engines:
        record = json.loads(options.json.read_text()) | {"engines": engines(judged)}
    else:
        record = report(plan, judged)
        main, peer = judged["main"].together(), judged["ckf best"].together()
        draw_plots(main, peer, options.images / "physics")
    write_json(options.json, record)
    for name, make in TABLES.items():
        print(f"\n{name}\n\n{make(record)}")


if __name__ == "__main__":
    main()
