"""The search for the settings that serve best on this machine.

A trial starts a server with a candidate's settings and loads it at several concurrencies, or at the rate
that is asked for. The search goes from a sensible start along one axis after the other, takes what is
better, and ends when a round over all axes brings nothing: a few dozen trials where all combinations
would be thousands. Each trial is one JSON file, and a trial that has its file isn't run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from trackserve.client import Client
from trackserve.contract.description import PIPELINE
from trackserve.contract.tensors import STAGES
from trackserve.engines.registry import STAGES_ENGINE, available, engine, fastest
from trackserve.errors import InputError, ServerError
from trackserve.files import write_text
from trackserve.load.load import Load, first_answers, mix
from trackserve.load.report import measure
from trackserve.serving.process import children
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trackserve.bundle import Bundle
    from trackserve.event import Hits

FREE_PORTS: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
GAIN = 1.03
"""A candidate is better if its score is this many times the best: less may be chance."""
EVENTS = 2
"""And if it answered this many more events, where it is about events a second."""
HOPELESS = 1.5
"""Where p99 is this many times what it may be, no load with more events at once is tried; where a lone
event takes this many times as long as it may, none at all."""
LEAST_PATIENCE = 2.0
"""Seconds that a first event may take in any case."""
SLOWEST = ("neighbours", "gnn", "filter", "embedding")
"""The stages of an ensemble that may be given more than one instance."""
BATCHES = (1, 4, 8)
"""How many waiting events of few hits may go to an instance in one execution."""
OVERLOAD = 2.0
"""The queue's limit is tried at this many times the throughput."""


@dataclass(frozen=True)
class Goal:
    """Most throughput with ``p99`` (s) at most so long, or the lowest p99 at ``rate`` events a second."""

    p99: float = 0.0
    rate: float = 0.0

    def __post_init__(self) -> None:
        if (self.p99 > 0) == (self.rate > 0):
            message = f"p99 is {self.p99:g} s and rate {self.rate:g}/s; give one of them, above 0"
            raise InputError(message)

    def __str__(self) -> str:
        if self.rate:
            return f"the lowest p99 at {self.rate:g} events/s"
        return f"the most events/s with p99 below {1000 * self.p99:g} ms"

    def score(self, point: dict[str, Any]) -> float:
        """Return how good a measured load is, the more the better; 0 where it misses the goal."""
        counts, latency = point["counts"], point["latency"]
        if counts["answered"] < 0.99 * counts["sent"] or counts["wrong"] or not latency["p99"]:
            return 0.0
        if self.rate:
            kept_up = point["throughput"] > 0.9 * counts["sent"] / point["load"]["seconds"]
            return float(kept_up / latency["p99"])
        return float(point["throughput"] * (latency["p99"] <= self.p99))


@dataclass(frozen=True)
class Candidate:
    """Settings to be tried and how the client speaks.

    In an ensemble ``instances`` are those of each of the ``widened`` stages, ``threads`` those of every stage.
    """

    shape: Literal["monolith", "ensemble"] = "monolith"
    engine: str = field(default_factory=fastest)
    precision: str = "bundle"
    instances: int = 1
    threads: int = 1
    protocol: Literal["grpc", "http"] = "grpc"
    shared_memory: bool = False
    max_queue: int = 64
    batch: int = 1
    widened: tuple[str, ...] = SLOWEST

    @property
    def name(self) -> str:
        """The candidate in one word, for its file."""
        memory = "-shm" if self.shared_memory else ""
        widened = "" if self.widened == SLOWEST else "".join(f"-{stage}" for stage in self.widened)
        return (
            f"{self.shape}-{self.engine}-{self.precision}-i{self.instances}-t{self.threads}-"
            f"{self.protocol}{memory}-q{self.max_queue}-b{self.batch}{widened}"
        )

    @classmethod
    def of(cls, trial: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a trial as it is in its file."""
        return cls(**trial["candidate"] | {"widened": tuple(trial["candidate"]["widened"])})

    @property
    def settings(self) -> Settings:
        """What a server is started with."""
        models = (PIPELINE,) if self.shape == "monolith" else self.widened
        every = (PIPELINE,) if self.shape == "monolith" else [stage.name for stage in STAGES]
        return Settings(
            shape=self.shape,
            engine=self.engine,
            precision=self.precision,
            instances=dict.fromkeys(models, self.instances),
            threads=dict.fromkeys(every, self.threads),
            max_queue=self.max_queue,
            batch=self.batch,
            shared_memory=self.shared_memory,
        )


@dataclass(frozen=True, eq=False)
class Tuning:
    """A search: what is served, with which events, for which goal, and within which bounds.

    A load lasts ``seconds``; at most ``trials`` are run; ``memory`` is in bytes; ``precisions`` are
    those that may be chosen: another one than the bundle's finds slightly other tracks.
    """

    bundle: Bundle
    hits: Sequence[Hits]
    goal: Goal
    folder: Path
    seconds: float = 5.0
    trials: int = 40
    cores: int = len(os.sched_getaffinity(0))
    memory: float = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    engines: tuple[str, ...] = field(default_factory=available)
    precisions: tuple[str, ...] = ("bundle",)

    def search(self) -> list[dict[str, Any]]:
        """Run the search and return its trials, in the order in which they were wanted."""
        self._check_folder()
        # The last trial is for an overload, where the goal needs one.
        most = max(1, self.trials - (self.goal.p99 > 0))
        found: list[dict[str, Any]] = []
        best = Candidate(engine=self.engines[0], instances=self.cores)
        with tqdm(
            desc=f"tune for {self.goal}", unit="trial", total=self.trials, disable=None
        ) as bar:
            highest, seen = self._try(best, found, bar), {best}
            better = True
            while better:
                better = False
                for axis in AXES:
                    for other in self.along(axis, best):
                        if other in seen or len(seen) >= most:
                            continue
                        seen.add(other)
                        if self._is_better(score := self._try(other, found, bar), highest):
                            best, highest, better = other, score, True
        if self.goal.p99 and highest:
            found += self._overloads(best, found, self.trials - len(found))
        return found

    def best(
        self, trials: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the trial that the search goes on from last, and its best load; None if none meets the goal."""
        found, highest = None, 0.0
        for trial in trials:
            point = max(trial["loads"], key=self.goal.score, default=None)
            if point and self._is_better(score := self.goal.score(point), highest):
                found, highest = (trial, point), score
        return found

    def _is_better(self, score: float, best: float) -> bool:
        """Whether a score is above the best so far by more than chance; anything is better than nothing."""
        more = round((score - best) * self.seconds)
        enough = not best or self.goal.rate > 0 or more >= EVENTS
        return score > GAIN * best and enough

    def queue(self, trials: Sequence[dict[str, Any]]) -> tuple[int | None, bool]:
        """Return the longest limit with which an overloaded server kept the goal, and True.

        Else the shortest that was tried, with which the best load isn't refused, and False; None if
        no server was overloaded.
        """
        overloads = [trial for trial in trials if "overload" in trial]
        kept = [t["candidate"]["max_queue"] for t in overloads if self._is_kept(t)]
        tried = [t["candidate"]["max_queue"] for t in overloads]
        return (max(kept), True) if kept else (min(tried, default=None), False)

    def along(self, axis: str, best: Candidate) -> Iterator[Candidate]:
        """Yield the candidates that differ from the best on one axis and fit the machine."""
        values: dict[str, Sequence[Any]] = {
            "instances and threads": [
                (instances, threads)
                for instances in _steps(2 * self.cores)
                for threads in _steps(self.cores)
                if instances * threads <= 2 * self.cores
            ],
            "widened stages": [
                (tuple(stage for stage in best.widened if stage != left_out),)
                for left_out in best.widened
            ]
            if best.shape == "ensemble" and best.instances > 1
            else (),
            "protocol": [("grpc", False), ("http", False), ("grpc", True)],
            "batch": BATCHES if best.shape == "monolith" else (),
            "precision": self.precisions,
            "engine and shape": [("monolith", name) for name in self.engines]
            + [("ensemble", STAGES_ENGINE)] * (STAGES_ENGINE in self.engines),
        }
        for value in values[axis]:
            other = replace(best, **dict(zip(AXES[axis], _listed(value), strict=True)))
            if other.shape == "ensemble":
                other = replace(other, batch=1)
            if other.precision not in {"bundle", *engine(other.engine).all_precisions}:
                other = replace(other, precision="bundle")
            if other != best:
                yield other

    def _loads(self, candidate: Candidate) -> list[Load]:
        common: dict[str, Any] = {
            "seconds": self.seconds,
            "shared_memory": candidate.shared_memory,
            "processes": 1,
        }
        if self.goal.rate:
            return [Load(rate=self.goal.rate, **common)]
        return [Load(concurrency=n, **common) for n in _steps(8 * self.cores)]

    def _try(self, candidate: Candidate, found: list[dict[str, Any]], bar: Any = None) -> float:
        """Return the score of a candidate, from its file if it has been tried."""
        path = self.folder / "trials" / f"{candidate.name}.json"
        if path.exists():
            trial = json.loads(path.read_text(encoding="utf-8"))
        else:
            trial = self._run(candidate, self._loads(candidate))
            path.parent.mkdir(exist_ok=True)
            write_json(path, trial)
        found.append(trial)
        if bar is not None:
            bar.update()
        return max((self.goal.score(point) for point in trial["loads"]), default=0.0)

    def _run(self, candidate: Candidate, loads: Sequence[Load]) -> dict[str, Any]:
        trial: dict[str, Any] = {"candidate": asdict(candidate), "loads": [], "memory": 0.0}
        try:
            with serve(self.bundle, candidate.settings, **FREE_PORTS) as server:
                url = server.grpc_url if candidate.protocol == "grpc" else server.http_url
                with Client(server.grpc_url, timeout=self._patience(candidate)) as client:
                    events = first_answers(client, mix(client, [("events", self.hits)]))
                for load in loads:
                    point = measure(url, events, load, metrics_url=server.metrics_url).to_json()
                    trial["loads"].append(point)
                    p99 = point["latency"]["p99"]
                    if self.goal.p99 and (p99 is None or p99 > HOPELESS * self.goal.p99):
                        break  # with more at once events only wait longer
                trial["memory"] = memory_of(server.pid)
        except ServerError as error:
            trial["error"] = str(error)
        if trial["memory"] > self.memory:
            trial |= {"loads": [], "error": f"needs {trial['memory'] / 1e9:.1f} GB of memory"}
        return trial

    def _patience(self, candidate: Candidate) -> float:
        """Return how long (s) a lone event may take before the candidate is given up."""
        longest = self.goal.p99 or candidate.settings.at_once / self.goal.rate
        return max(LEAST_PATIENCE, HOPELESS * longest)

    def _overloads(
        self, best: Candidate, trials: Sequence[dict[str, Any]], most: int
    ) -> list[dict[str, Any]]:
        """Halve the queue until accepted events keep the goal when too many come, in at most ``most`` trials.

        It stays long enough for the load that the best candidate was best with.
        """
        found: list[dict[str, Any]] = []
        if most < 1 or (chosen := self.best(trials)) is None:
            return found
        point, at_once = chosen[1], best.settings.at_once
        throughput = point["throughput"]
        least = max(1, point["load"]["concurrency"] - at_once)
        limit = max(least, int(self.goal.p99 * throughput) - at_once)
        while True:
            candidate = replace(best, max_queue=limit)
            path = self.folder / "trials" / f"{candidate.name}-overload.json"
            load = Load(
                rate=OVERLOAD * throughput,
                seconds=self.seconds,
                processes=1,
                shared_memory=best.shared_memory,
            )
            if not path.exists():
                write_json(path, self._run(candidate, [load]))
            trial = json.loads(path.read_text(encoding="utf-8"))
            found.append({**trial, "overload": True})
            if limit == least or len(found) == most or self._is_kept(trial):
                return found
            limit = max(least, limit // 2)

    def _is_kept(self, overload: dict[str, Any]) -> bool:
        latencies = [point["latency"]["p99"] for point in overload["loads"]]
        return bool(latencies) and latencies[0] is not None and latencies[0] <= self.goal.p99

    def _check_folder(self) -> None:
        """Keep trials of different machines, bundles, events or lengths apart."""
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {
            "bundle": self.bundle.digest(),
            "hits": [len(hits) for hits in self.hits],
            "goal": str(self.goal),
            "seconds": self.seconds,
            "cores": self.cores,
        }
        path = self.folder / "tuning.json"
        if path.exists() and (there := json.loads(path.read_text(encoding="utf-8"))) != given:
            differ = ", ".join(name for name in given if there.get(name) != given[name])
            message = f"{self.folder} has trials with another {differ}; choose another folder"
            raise InputError(message)
        write_json(path, given)


AXES = {
    "instances and threads": ("instances", "threads"),
    "protocol": ("protocol", "shared_memory"),
    "batch": ("batch",),
    "precision": ("precision",),
    "engine and shape": ("shape", "engine"),
    "widened stages": ("widened",),
}
"""What a search goes along: the fields of a candidate that change together."""


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def _steps(largest: int) -> list[int]:
    """Return 1, 2, 4, ... and the largest."""
    return sorted({2**n for n in range(largest.bit_length()) if 2**n <= largest} | {largest})


def memory_of(pid: int) -> float:
    """Return the memory (bytes) of a server's processes; what they share counts once."""
    total = 0
    for each in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii")
            total += sum(
                1024 * int(kilobytes) for kilobytes in re.findall(r"^Pss:\s*(\d+)", text, re.M)
            )
    return float(total)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")
