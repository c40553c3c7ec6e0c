"""Judging a track finder event by event, in several processes, so that a stop loses nothing.

What an event gave is written to a small JSON file of its own and read from there the next time. The
file's folder is named after all that decides it: the code, the finder and its settings, the events'.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

import trackserve
from studies.physics.changes import CHANGES
from studies.physics.ckf import CONFIGURATIONS, KalmanFilter
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.evaluate.report import Evaluation, StagedTracks, add_up, evaluate_event, with_stages
from trackserve.event import Event, Hits, Tracks
from trackserve.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trackserve.data import EventSource

Find = Callable[[Hits], tuple[Tracks | StagedTracks, dict[str, float]]]
"""Finds the tracks of an event and returns the processor seconds of its steps, too."""


class Finder(ABC):
    """A track finder that can be sent to another process and opened there."""

    @abstractmethod
    def identity(self) -> str:
        """Return what decides what it finds, beside code and events, as text."""

    @abstractmethod
    def open(self) -> Find:
        """Return what finds the tracks of an event, with the processor seconds of its steps."""

    @abstractmethod
    def read(self, source: EventSource) -> Event:
        """Read what it needs of an event, and the truth."""


@dataclass(frozen=True)
class BundleFinder(Finder):
    """A bundle on an engine, in its own precision if none is named.

    ``positions_only`` gives it x, y and z and nothing else of a hit; ``change`` names one of
    ``CHANGES`` that events go through first. ``staged`` counts the edges after each stage, too.
    """

    bundle: Path | None = None
    engine: str = "native"
    positions_only: bool = False
    precision: str | None = None
    change: str = ""
    staged: bool = True

    def identity(self) -> str:
        """Return the bundle's digest, the engine, and what it is given."""
        columns = " positions" if self.positions_only else ""
        columns += f" {self.precision}" if self.precision else ""
        columns += f" {self.change}" if self.change else ""
        columns += "" if self.staged else " without stages"
        return f"{read_bundle(self.bundle).digest()} {self.engine}{columns}"

    def open(self) -> Find:
        """Return the pipeline with the edges after each stage."""
        pipeline = open_pipeline(
            read_bundle(self.bundle), engine=self.engine, precision=self.precision
        )
        staged = with_stages(pipeline)

        def find(hits: Hits) -> tuple[Tracks | StagedTracks, dict[str, float]]:
            start = time.process_time()
            if self.engine == "reference":  # its stages come apart at no cost, and it is slow
                return staged(hits), {"total": time.process_time() - start}
            tracks = pipeline.find_tracks(hits)
            seconds = time.process_time() - start
            if not self.staged:
                return tracks, {"total": seconds}
            found = staged(hits)
            assert np.array_equal(found.tracks.labels, tracks.labels)
            return found, {"total": seconds}

        return find

    def read(self, source: EventSource) -> Event:
        """Read the columns of the hits that the bundle asks for."""
        event = source.read_columns(read_bundle(self.bundle).features.wire_columns)
        event = CHANGES[self.change](event) if self.change else event
        hits = event.hits
        if not self.positions_only:
            return event
        return Event(event.event_id, Hits(hits.hit_id, hits.x, hits.y, hits.z), event.truth)


@dataclass(frozen=True)
class KalmanFinder(Finder):
    """ACTS' Kalman filter in a configuration of ``ckf.CONFIGURATIONS``."""

    configuration: str = "best"

    def identity(self) -> str:
        """Return the settings."""
        return str(CONFIGURATIONS[self.configuration])

    def open(self) -> Find:
        """Return the chain, with the seconds of each of its steps and of all."""
        chain = KalmanFilter(CONFIGURATIONS[self.configuration])

        def find(hits: Hits) -> tuple[Tracks, dict[str, float]]:
            tracks, seconds = chain.find_tracks(hits)
            return tracks, {**seconds, "total": sum(seconds.values())}

        return find

    def read(self, source: EventSource) -> Event:
        """Read hits with modules and the sizes of their clusters."""
        return source.read(truth=True, cells=True)


@dataclass(frozen=True)
class Job:
    """A finder on the first ``events`` events of a folder (all if None)."""

    finder: Finder
    folder: Path
    events: int | None = None

    def sources(self) -> Sequence[EventSource]:
        """Return the events."""
        return find_events(self.folder)[: self.events]

    def results(self, work: Path) -> Path:
        """Return the folder of what its events gave."""
        made = self.folder / "simulation.json"
        settings = made.read_text() if made.exists() else str(self.folder.resolve())
        decisive = f"{code_digest()} {self.finder.identity()} {settings}"
        key = hashlib.sha256(decisive.encode()).hexdigest()[:12]
        return work / f"{self.folder.name}-{type(self.finder).__name__}-{key}"


@dataclass(frozen=True, eq=False)
class Judged:
    """What a finder gave on some events: of each its evaluation and the processor seconds."""

    events: dict[int, Evaluation]
    seconds: dict[int, dict[str, float]]

    def together(self, chosen: Sequence[int] | None = None) -> Evaluation:
        """Return the evaluation of all events, or of those of these numbers."""
        return add_up(self.events[number] for number in chosen or self.events)

    def seconds_per_event(self, chosen: Sequence[int] | None = None) -> dict[str, float]:
        """Return the mean processor seconds of each step on these events, or on all."""
        seconds = [self.seconds[number] for number in chosen or self.events]
        return {step: float(np.mean([each[step] for each in seconds])) for step in seconds[0]}


def judge(jobs: Sequence[Job], work: Path, workers: int) -> list[Judged]:
    """Judge every job's events that ``work`` has no result of, and return what each job gave."""
    wanted = []
    for job in jobs:
        folder = job.results(work)
        folder.mkdir(parents=True, exist_ok=True)
        wanted.append(
            {s.event_id: (job.finder, s, folder / f"{s.event_id}.json") for s in job.sources()}
        )
    everything = [each for events in wanted for each in events.values()]
    pending = [each for each in everything if not each[2].exists()]
    done = len(everything) - len(pending)
    with tqdm(total=len(everything), initial=done, unit="event", desc="judge") as bar:
        for _ in _in_parallel(pending, workers) if workers > 1 else starmap(_judge_event, pending):
            bar.update()
    return [_read({number: path for number, (_, _, path) in each.items()}) for each in wanted]


def _in_parallel(
    pending: Sequence[tuple[Finder, EventSource, Path]], workers: int
) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_judge_event, *each) for each in pending]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _judge_event(finder: Finder, source: EventSource, path: Path) -> None:
    find = _opened(finder)
    event = finder.read(source)
    found, seconds = find(event.hits)
    record = {"seconds": seconds, "evaluation": evaluate_event(event, found).to_json()}
    write_text(path, json.dumps(record) + "\n")


@lru_cache(maxsize=2)
def _opened(finder: Finder) -> Find:
    return finder.open()


def _read(results: Mapping[int, Path]) -> Judged:
    records = {number: json.loads(path.read_text()) for number, path in results.items()}
    return Judged(
        {number: Evaluation.from_json(each["evaluation"]) for number, each in records.items()},
        {number: each["seconds"] for number, each in records.items()},
    )


@cache
def code_digest() -> str:
    """Return the digest of all code that a result may depend on.

    That is every file of the installed package but its bundles (which have digests of their own), this
    package of studies, and the versions of what computes.
    """
    content = hashlib.sha256()
    for folder in (Path(trackserve.__file__).parent, Path(__file__).parent):
        content.update(tree_digest(folder).encode())
    for package in ("numpy", "onnxruntime", "pyacts", "scipy"):
        content.update(f"{package} {metadata.version(package)}\n".encode())
    return content.hexdigest()


def tree_digest(folder: Path) -> str:
    """Return the digest of the files in a folder, their names and contents, but of no ``bundles``."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not {"bundles", "__pycache__"} & set(name.parts):
            content.update(f"{name} {path.stat().st_size}\n".encode())
            content.update(path.read_bytes())
    return content.hexdigest()
