"""How many events a second processes find that each have the pipeline in themselves, without a server.

In a module of its own: a process that is spawned cannot import what ``__main__`` defines.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from studies.service.study import CORES
from trackserve.bundle import read_bundle
from trackserve.engines.registry import open_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from studies.service.study import Study
    from trackserve.event import Hits


def in_process(study: Study, kind: str, seconds: float) -> float:
    """Return the events a second of one process a core, each with the pipeline in itself."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(CORES), context.Queue()
    how = (study.bundle.path, study.settings.engine, study.open.keywords["precision"])
    processes = [
        context.Process(target=_work, args=(how, study.hits[kind], seconds, ready, answers))
        for _ in range(CORES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        message = f"processes ended with {[process.exitcode for process in processes]}"
        raise RuntimeError(message)
    rates = [answers.get() for _ in processes]
    return float(sum(rates))


def _work(
    how: tuple[Path, str, str | None], events: list[Hits], seconds: float, ready: Any, answers: Any
) -> None:
    bundle, engine, precision = how
    pipeline = open_pipeline(read_bundle(bundle), engine=engine, precision=precision)
    pipeline.find_tracks(events[0])
    ready.wait()
    start, done = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        pipeline.find_tracks(events[done % len(events)])
        done += 1
    answers.put(done / (time.monotonic() - start))
