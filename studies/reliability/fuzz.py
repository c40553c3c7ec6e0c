"""The campaign: hostile requests against real servers, and a good event after every hundred of them.

Each lane is a process with a connection of its own to one server. Its request number ``i`` follows from seed, lane and ``i``,
so that whatever went wrong can be sent again; the bytes are kept, too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.reliability.corpus import Request, grpc_cases, http_cases
from studies.reliability.mutate import request
from studies.reliability.watch import around, growth, processes
from studies.reliability.wire import HANG_SECONDS, Wire, fault, head_and_body
from trackserve.client import Client
from trackserve.errors import TrackserveError
from trackserve.serving.process import children
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.event import Hits, Int64
    from trackserve.serving.service import Service

GOOD_EVERY = 100
AT_ONCE = 8
"""Requests of a lane in flight."""
CORPUS_SHARE = 0.003
KEPT_FAULTS = 20
LOOK_SECONDS = 2.0
FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Lane:
    """What one process sends, and where."""

    name: str
    seed: int
    port: int
    urls: tuple[str, ...]
    good: Hits
    columns: int
    labels: Int64
    seconds: float
    most: int
    kept: Path


@dataclass
class Found:
    """What became of a lane's requests."""

    requests: int = 0
    good: int = 0
    wrong: int = 0
    hangs: int = 0
    slowest_s: float = 0.0


def run_lane(lane: Lane, result: Connection) -> None:
    """Send requests until the time is over, a few at once, and report what became of them."""
    found, outcomes, faults = Found(), Counter[str](), list[str]()
    cases = list((http_cases(lane.columns) | grpc_cases(lane.columns)).items())
    wires, end = [Wire(lane.port) for _ in range(AT_ONCE)], time.monotonic() + lane.seconds
    judged = 0
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(url, tries=10, timeout=30)) for url in lane.urls]
        while found.requests < lane.most and (
            time.monotonic() < end or found.requests < len(cases)
        ):
            asked = [_request(lane, cases, found.requests + i) for i in range(AT_ONCE)]
            for wire, (_, sent) in zip(wires, asked, strict=True):
                with contextlib.suppress(TimeoutError):  # finish finds it
                    wire.begin(sent)
            for wire, (name, sent) in zip(wires, asked, strict=True):
                wrong = _judge(wire, sent, found, outcomes)
                if wrong:
                    faults.append(f"{lane.name} {found.requests} {name}: {wrong}"[:500])
                    if len(faults) <= KEPT_FAULTS:
                        kept = lane.kept / f"{lane.name}-{found.requests}.request"
                        kept.write_bytes(head_and_body(sent))
                found.requests += 1
            if found.requests - judged >= GOOD_EVERY:
                judged = found.requests
                for client in clients:
                    found.good += 1
                    if problem := _good(client, lane):
                        found.wrong += 1
                        faults.append(f"{lane.name} after {judged}: {problem}")
    result.send((vars(found), dict(outcomes), faults))


def _request(lane: Lane, cases: list[tuple[str, Request]], number: int) -> tuple[str, Request]:
    """Return request ``number`` of a lane: the corpus first, then mutations and now and then the corpus again."""
    rng = random.Random(f"{lane.seed} {lane.name} {number}")
    if number < len(cases):
        return cases[number]
    return rng.choice(cases) if rng.random() < CORPUS_SHARE else ("", request(rng, lane.columns))


def _judge(wire: Wire, sent: Request, found: Found, outcomes: Counter[str]) -> str:
    """Receive the answer to a request and return what is wrong with it."""
    began = time.monotonic()
    try:
        answer = wire.finish(sent)
    except TimeoutError:
        found.hangs += 1
        return f"no answer within {HANG_SECONDS:g} s"
    finally:
        found.slowest_s = max(found.slowest_s, time.monotonic() - began)
    outcomes[_outcome(answer)] += 1
    return fault(sent, answer)


def _outcome(answer: Any) -> str:
    if answer is None:
        return "cut off by us"
    if answer.grpc_status is not None:
        return f"gRPC {answer.grpc_status}"
    return f"HTTP {answer.status}" if answer.status else "closed"


def _good(client: Client, lane: Lane) -> str:
    """Return what is wrong with the answer to the good event."""
    try:
        labels = client.find_tracks(lane.good).labels
    except TrackserveError as error:
        return f"the good event was not answered: {error}"
    return "" if np.array_equal(labels, lane.labels) else "the good event got other labels"


def campaign(
    bundle: Bundle, hits: Hits, *, minutes: float, seed: int, kept: Path, most: int = 10**9
) -> dict[str, Any]:
    """Serve a bundle in both shapes, each from a service of its own, and :func:`attack` them."""
    kept.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as running:
        services = {
            shape: running.enter_context(
                serve(bundle, Settings(shape=shape), log=kept / f"{shape}.log", **FREE_PORTS)  # type: ignore[arg-type]
            )
            for shape in ("monolith", "ensemble")
        }
        columns = len(bundle.features.wire_columns)
        return attack(services, hits, columns, minutes=minutes, seed=seed, kept=kept, most=most)


def attack(
    services: Mapping[str, Service],
    hits: Hits,
    columns: int,
    *,
    minutes: float,
    seed: int,
    kept: Path,
    most: int = 10**9,
) -> dict[str, Any]:
    """Send hostile requests to running services; return counts, faults and how memory went.

    ``hits`` is the good event, ``columns`` the number that the services take of a hit. ``most`` bounds the
    requests of each of the two lanes to a service. What failed is kept in the folder ``kept``.
    """
    kept.mkdir(parents=True, exist_ok=True)
    before = {shape: _pids(service) for shape, service in services.items()}
    restarted = {shape: _restarts(service) for shape, service in services.items()}
    lanes: list[Lane] = []
    for shape, service in services.items():
        with Client(service.grpc_url) as client:
            labels = client.find_tracks(hits).labels
        urls, seconds = (service.grpc_url, service.http_url), 60 * minutes
        lanes += [
            Lane(
                f"{shape}-{port}",
                seed,
                service.ports[port],
                urls,
                hits,
                columns,
                labels,
                seconds,
                most,
                kept,
            )
            for port in ("http", "grpc")
        ]
    named = {
        name: pid
        for shape, service in services.items()
        for name, pid in ((shape, service.pid), (f"{shape} guard", service.guard.pid))
    }
    results, samples = _run(lanes, named)
    restarts = {shape: _restarts(s) - restarted[shape] for shape, s in services.items()}
    same = {shape: _pids(service) == before[shape] for shape, service in services.items()}
    return _summary(lanes, results, samples, restarts, same)


def _restarts(service: Service) -> int:
    return len(service.restarted) + len(service.guard.restarted)


def _pids(service: Service) -> tuple[int, ...]:
    return service.guard.pid, service.pid, *sorted(children(service.pid))


def _run(lanes: list[Lane], named: dict[str, int]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Run the lanes beside each other; look meanwhile at what the processes hold."""
    pipes, started = [], []
    for lane in lanes:
        here, there = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=run_lane, args=(lane, there), name=lane.name)
        process.start()
        there.close()
        pipes.append(here)
        started.append(process)
    began, samples = time.monotonic(), []
    results: list[Any] = [None] * len(lanes)
    while any(each is None for each in results):
        samples.append(
            {
                "seconds": time.monotonic() - began,
                "processes": {name: vars(each) for name, each in processes(named).items()},
                **around(),
            }
        )
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until and any(each is None for each in results):
            for i, pipe in enumerate(pipes):
                if results[i] is None and pipe.poll(0.05):
                    try:
                        results[i] = pipe.recv()
                    except EOFError:
                        results[i] = ({}, {}, [f"{lanes[i].name}: the lane itself failed"])
    for process in started:
        process.join()
    return results, samples


def _summary(
    lanes: list[Lane],
    results: list[Any],
    samples: list[dict[str, Any]],
    restarts: dict[str, int],
    same: dict[str, bool],
) -> dict[str, Any]:
    found: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for counts, became, _ in results:
        found.update({name: n for name, n in counts.items() if name != "slowest_s"})
        outcomes.update(became)
    faults = [fault for _, _, each in results for fault in each]
    names = sorted({name for sample in samples for name in sample["processes"]})
    return {
        **dict(found),
        "slowest_s": max((counts.get("slowest_s", 0.0) for counts, _, _ in results), default=0.0),
        "lanes": {
            lane.name: result[0].get("requests", 0)
            for lane, result in zip(lanes, results, strict=True)
        },
        "outcomes": dict(outcomes.most_common()),
        "restarts": restarts,
        "same_processes": same,
        "seconds": samples[-1]["seconds"] if samples else 0.0,
        "memory_mb": {name: growth(samples, name, "memory_mb") for name in names},
        "shared_memory_mb": [samples[0]["shared_memory_mb"], samples[-1]["shared_memory_mb"]],
        "fault_count": len(faults),
        "faults": faults[:100],
    }
