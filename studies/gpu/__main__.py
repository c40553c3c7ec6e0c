"""The engine for GPUs: every number of docs/gpu.md.

python -m studies.gpu kernels      compiles every kernel for every device, without one
python -m studies.gpu predict      predicts what an event takes (minutes in Triton's interpreter)
python -m studies.gpu measure      measures everything on a GPU (make gpu)
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from studies.gpu import kernels, model
from studies.gpu.tables import KERNELS, MEASURED, PREDICTION
from studies.record import RESULTS


def _predict(options: argparse.Namespace) -> tuple[Any, Any]:
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    events = None if options.events is None else {path.name: path for path in options.events}
    return model.run(options.json, events), PREDICTION


def _measure(options: argparse.Namespace) -> tuple[Any, Any]:
    from studies.gpu import measure  # noqa: PLC0415 - imports torch and triton

    folder = options.events or model.EVENTS["pileup 200"]
    events = measure.read_events(folder, options.most, options.wedge)
    plan = measure.Plan(options.device, events, options.repetitions, tuple(options.in_flight))
    return measure.run(options.json, plan, options.bundle), MEASURED


def main() -> None:
    """Parse the command line, run a study, and print its tables."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.gpu", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True)
    compiling = commands.add_parser("kernels", help="compile every kernel for every device")
    compiling.add_argument("--json", type=Path, default=kernels.RESULT, help="file to write")
    compiling.set_defaults(run=lambda options: (kernels.run(options.json), KERNELS))
    predicting = commands.add_parser("predict", help="predict an event on A100, H100, MI300X")
    predicting.add_argument("--json", type=Path, default=model.RESULT, help="file to write")
    predicting.add_argument(
        "--events", type=Path, nargs="+", help="folders; the first is counted (default: examples)"
    )
    predicting.set_defaults(run=_predict)
    measuring = commands.add_parser("measure", help="measure everything on a GPU")
    measuring.add_argument("--device", default="cuda:0", help="the engine's device")
    measuring.add_argument("--events", type=Path, help="folder (default: the pileup-200 example)")
    measuring.add_argument("--most", type=int, default=8, help="of these, how many")
    measuring.add_argument("--wedge", type=float, help="only hits within this azimuth, rad")
    measuring.add_argument("--repetitions", type=int, default=30, help="events of a measurement")
    measuring.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    measuring.add_argument("--bundle", type=Path, help="folder (default: the shipped bundle)")
    measuring.add_argument("--json", type=Path, default=RESULTS / "gpu.json", help="file to write")
    measuring.set_defaults(run=_measure)
    options = parser.parse_args()
    record, tables = options.run(options)
    for make in tables.values():
        print(make(record), end="\n\n")


if __name__ == "__main__":
    main()
