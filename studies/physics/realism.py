"""Compare simulated events with a folder of real TrackML events: table, picture, distances.

    python -m studies.physics.realism EVENTS [--simulated DIR] [--conditions NAME] [--workers N]

Simulates as many events as it is given unless --simulated names a folder of them. Writes
results/realism.json and docs/images/simulation.png; tools.documents writes the tables into
docs/simulation.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from studies.physics.realism_tables import distances, everything
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.data.simulate import simulate
from trackserve.evaluate.realism import compare, compare_with_reference, read_sample
from trackserve.evaluate.realism_plots import draw_realism

SEED = 404


def main() -> None:
    """Compare, print the tables, write record and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path, help="folder of real events in TrackML's format")
    parser.add_argument("--simulated", type=Path, help="folder of simulated events")
    parser.add_argument("--conditions", default="trackml", help="conditions to simulate")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    options = parser.parse_args()
    real = read_sample(options.events)
    folder = options.simulated
    if folder is None:
        folder = ROOT / "data/realism" / options.conditions
        simulate(
            folder,
            events=real.events,
            seed=SEED,
            conditions=options.conditions,
            workers=options.workers,
            form="parquet",
        )
    simulated = read_sample(folder)
    rows = [*compare(real, simulated), *compare_with_reference(folder)]
    record = {
        **installation(),
        "real_events": real.events,
        "simulated_events": simulated.events,
        "rows": [row.to_json() for row in rows],
    }
    write_json(RESULTS / "realism.json", record)
    draw_realism(real, simulated, ROOT / "docs/images/simulation.png")
    print(everything(record), distances(record), sep="\n\n")


if __name__ == "__main__":
    main()
