"""A server with ten times the load that it can carry, and one that is killed at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.service.study import BUSY, CORES, FREE_PORTS
from trackserve.client import AsyncClient, Client
from trackserve.client.statistics import Statistics
from trackserve.errors import TrackserveError
from trackserve.load.load import Load, drive
from trackserve.load.report import measure, summarise
from trackserve.load.tune import memory_of
from trackserve.serving.fleet import Fleet
from trackserve.serving.process import children
from trackserve.serving.service import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from studies.service.study import Study
    from trackserve.load.load import Events
    from trackserve.load.report import Latency
    from trackserve.serving.settings import Settings

MEGABYTE = 1e6
TIMES = 10
"""The load over the capacity."""


@dataclass(frozen=True)
class Overload:
    """How a server is overloaded: by which events, and for how long.

    ``look`` is how long its capacity is looked at, before and after. ``apart``: server and load have
    cores of their own, so that sending takes nothing from the server. ``proxy``: it is a fleet of one.
    """

    kind: str
    seconds: float
    look: float
    max_queue: int
    apart: bool = False
    proxy: bool = False


OVERLOADS = {
    # A limit of 6 keeps the wait of a pileup-200 event to a few seconds.
    "pu200": Overload("pu200", 300.0, 30.0, 6),
    "pu20": Overload("pu20", 60.0, 15.0, 64),
    "pu20 Envoy": Overload("pu20", 60.0, 15.0, 64, proxy=True),
    "pu20 apart": Overload("pu20", 60.0, 15.0, 64, apart=True),
    "pu20 Envoy apart": Overload("pu20", 60.0, 15.0, 64, apart=True, proxy=True),
}
TRIAL = ("pu200", "pu20 Envoy apart")
"""Those of a quick study: every way once."""
REQUESTS = 2000
AFTER_SECONDS = 15.0
"""How long the server is watched after the load."""


def overload(study: Study) -> dict[str, Any]:
    """Offer ten times what the server can do, for two sizes of events, directly and through Envoy."""
    return {
        name: _overload(study, how)
        for name, how in OVERLOADS.items()
        if (CORES > 1 or not how.apart) and (name in TRIAL or not study.quick)
    }


def _overload(study: Study, how: Overload) -> dict[str, Any]:
    """Measure goodput, refusals, memory, recovery, and which processes took the processor's time."""
    settings = replace(study.settings, max_queue=how.max_queue)
    every = os.sched_getaffinity(0)
    first = {min(every)}
    if how.apart and not study.given:
        settings = replace(settings, instances={"pipeline": len(every - first)})
    with contextlib.ExitStack() as stack:
        if how.apart:  # what is started gets the cores of who starts it
            stack.callback(os.sched_setaffinity, 0, every)
            os.sched_setaffinity(0, every - first)
        server = stack.enter_context(_serve(study, settings, proxy=how.proxy))
        if how.apart:
            os.sched_setaffinity(0, first)
        events = study.events(server.url, how.kind)
        idle = measure(server.url, events, Load(1, seconds=max(1.0, study.seconds(10.0))))
        busy = Load(BUSY, seconds=max(1.0, study.seconds(how.look)), processes=1)
        capacity = measure(server.url, events, busy).throughput
        watch = _Watch(server, events, idle.latency.p95, study.seconds(AFTER_SECONDS))
        load = Load(
            rate=TIMES * capacity,
            seconds=study.seconds(how.seconds),
            warm_up=study.seconds(5.0),
            processes=1,
            timeout=30,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        with watch:
            records = drive(
                server.url, events, load, progress=True, marks=(watch.ask, watch.recover)
            )
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = summarise(server.url, events, load, records, Statistics({}, {}))
        after = measure(server.url, events, busy).throughput
        memory = np.array(watch.memory)
        middle = memory[len(memory) // 10 : len(memory) // 2]
        whole = load.seconds + load.warm_up
        return {
            "capacity_per_s": capacity,
            "capacity_after_per_s": after,
            "offered_per_s": load.rate,
            "seconds": load.seconds,
            "max_queue": how.max_queue,
            "server_cores": len(every - first if how.apart else every),
            "counts": report.counts,
            "goodput_per_s": report.throughput,
            "goodput": report.throughput / float(np.mean([capacity, after])),
            "latency_ms": _percentiles(report.latency),
            "refusal_ms": _percentiles(report.refusal),
            "refusal": watch.refusal,
            "recovery_s": watch.recovery,
            "idle_p95_ms": 1000 * idle.latency.p95,
            "cores": {
                "load": (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / whole,
                **{name: spent / load.seconds for name, spent in watch.spent().items()},
            },
            "memory_mb": {
                "before": float(memory[0]),
                "first_half": float(middle.max()),
                "peak": float(memory.max()),
                "end": float(memory[-1]),
            },
        }


@dataclass(frozen=True)
class _Served:
    """Where a load goes, and the process of tritonserver and that of Envoy if there is one."""

    url: str
    pids: tuple[int, ...]


@contextlib.contextmanager
def _serve(study: Study, settings: Settings, *, proxy: bool) -> Iterator[_Served]:
    if not proxy:
        with serve(study.bundle, settings, **FREE_PORTS) as server:
            yield _Served(server.grpc_url, (server.pid,))
        return
    settings = replace(settings, shared_memory=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        Fleet(study.bundle, settings, servers=1, folder=folder, port=0) as fleet,
    ):
        yield _Served(f"grpc://{fleet.address}", (fleet.members[0].server.pid, fleet.guard.pid))


def _percentiles(latency: Latency) -> dict[str, float] | None:
    """Return milliseconds by percentile, none of no requests."""
    if not latency.count:
        return None
    return {p: 1000 * getattr(latency, p) for p in ("p50", "p95", "p99")}


class _Watch:
    """Memory of the server's processes twice a second, their time, and how single requests fare."""

    def __init__(self, server: _Served, events: Events, normal: float, after: float) -> None:
        self.memory: list[float] = []
        self.refusal: dict[str, Any] = {}
        self.recovery: float | None = None
        self._server, self._table, self._normal = server, events.tables[0], 2 * normal
        self._after = after
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._sample)]
        self._seconds: list[dict[str, float]] = []

    def __enter__(self) -> None:
        self._threads[0].start()

    def __exit__(self, *_: object) -> None:
        for thread in self._threads[1:]:
            thread.join()
        self._stopped.set()
        self._threads[0].join()

    def ask(self) -> None:
        """Ask under load until refused, and keep what the refusal says."""
        self._seconds.append(_processor_seconds(self._server.pids))
        self._threads.append(threading.Thread(target=self._ask))
        self._threads[-1].start()

    def _ask(self) -> None:
        until = time.monotonic() + self._after
        with Client(self._server.url, tries=1, timeout=30) as client:
            while time.monotonic() < until:
                start = time.monotonic()
                try:
                    client.find_tracks(self._table)
                except TrackserveError as error:
                    retry_after = getattr(error, "retry_after", None)
                    seconds = time.monotonic() - start
                    self.refusal = {
                        "says": re.sub(r"\S+://\S+", "SERVER", str(error)),
                        "retry_after_s": retry_after,
                        "came_after_ms": 1000 * seconds,
                    }
                    return

    def recover(self) -> None:
        """From the load's end on, find when single requests are answered as fast as before."""
        self._seconds.append(_processor_seconds(self._server.pids))
        self._threads.append(threading.Thread(target=self._recover))
        self._threads[-1].start()

    def _recover(self) -> None:
        start = time.monotonic()
        last_slow = start
        with Client(self._server.url, tries=1, timeout=30) as client:
            while (began := time.monotonic()) < start + self._after:
                try:
                    client.find_tracks(self._table)
                    slow = time.monotonic() - began > self._normal
                except TrackserveError:
                    slow = True
                if slow and began - last_slow < 1:  # a lone slow one later is not the overload's
                    last_slow = time.monotonic()
                time.sleep(0.05)
        self.recovery = last_slow - start

    def spent(self) -> dict[str, float]:
        """Return the processor seconds of tritonserver and of each model, under the load."""
        before, after = self._seconds
        return {name: seconds - before[name] for name, seconds in after.items()}

    def _sample(self) -> None:
        while not self._stopped.wait(0.5):
            self.memory.append(sum(map(memory_of, self._server.pids)) / MEGABYTE)


def _processor_seconds(pids: tuple[int, ...]) -> dict[str, float]:
    """Return what tritonserver, the processes of each model and Envoy have used, by name."""
    found: dict[str, float] = {}
    for each in (*pids, *(child for pid in pids for child in children(pid))):
        command = Path(f"/proc/{each}/cmdline").read_text(encoding="utf-8").split("\0")
        models = [Path(word).parts[-3] for word in command if word.endswith("/model.py")]
        name = models[0] if models else Path(command[0]).name
        fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])  # user and system
        found[name] = found.get(name, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return found


def killed(study: Study) -> dict[str, Any]:
    """Kill the models' processes, and then tritonserver, in the middle of requests; count answers."""
    with serve(study.bundle, study.settings, **FREE_PORTS) as server:
        events = study.events(server.grpc_url, "small")
        requests = study.requests(REQUESTS)
        models = ask_and_kill(server.grpc_url, events, requests, lambda: children(server.pid))
        whole = ask_and_kill(server.grpc_url, events, requests, lambda: [server.pid])
        both = {name: models[name] + whole[name] for name in models}
        return {**both, "restarts": len(server.restarted)}


def ask_and_kill(
    url: str, events: Events, requests: int, victims: Callable[[], list[int]]
) -> dict[str, int]:
    """Kill processes in the middle of requests; count what was lost, wrong and answered twice."""
    answers = asyncio.run(_ask_and_kill(url, events, requests, victims))
    indices = {index for index, _ in answers}
    return {
        "requests": requests,
        "lost": requests - len(indices),
        "wrong": sum(not right for _, right in answers),
        "twice": len(answers) - len(indices),
    }


async def _ask_and_kill(
    url: str, events: Events, requests: int, victims: Callable[[], list[int]]
) -> list[tuple[int, bool]]:
    answers = []
    tables, expected = events.tables, events.expected or []
    sent = (tables[i % len(tables)] for i in range(requests))
    async with AsyncClient(url, timeout=300) as client:
        async for answer in client.find_all(sent, ordered=False):
            with contextlib.suppress(TrackserveError):
                labels = answer.tracks.labels
                right = np.array_equal(labels, expected[answer.index % len(tables)])
                answers.append((answer.index, right))
            if len(answers) == requests // 2:
                for pid in victims():
                    os.kill(pid, signal.SIGKILL)
    return answers
