"""Write ``plan.json`` or ``hosts.json`` beside the other results.

python -m studies.scaling plan [--seconds 60]     the plan's latencies beside measured ones; a quiet machine
python -m studies.scaling hosts [--seconds 20]    hosts that fail, as network namespaces; needs root
"""

from __future__ import annotations

import argparse
from pathlib import Path

from studies.record import RESULTS, ROOT, installation, write_json
from studies.scaling.hosts import try_hosts
from studies.scaling.planned import compare
from trackserve.bundle import read_bundle
from trackserve.data import find_events


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.scaling", description=__doc__.splitlines()[0]
    )
    parser.add_argument("study", choices=["plan", "hosts"])
    parser.add_argument("--bundle", default="hl-lhc", help="a shipped bundle or a folder")
    parser.add_argument("--events", type=Path, default=ROOT / "examples/events/pu20")
    parser.add_argument("--seconds", type=float, help="of each load (plan 60, hosts 20)")
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    hits = [source.read(truth=False).hits for source in find_events(options.events)]
    if options.study == "plan":
        found = compare(bundle, hits, options.seconds or 60.0)
    else:
        found = try_hosts(bundle, hits[0], options.seconds or 20.0)
    facts = {"installation": installation(), "bundle": bundle.name, "hits": [len(h) for h in hits]}
    write_json(RESULTS / f"{options.study}.json", {**facts, **found})


if __name__ == "__main__":
    main()
