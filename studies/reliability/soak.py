"""Hours of use as it comes: events of all sizes, hostile requests, servers killed, rolls, clients that give up.

A fleet of two servers is asked by a few clients at once. What every process holds, and what lies about, is noted all the time:
whatever grows is seen, and whether it goes on growing. Every answer is compared with the right one.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.reliability.mutate import request
from studies.reliability.watch import around, growth, processes
from studies.reliability.wire import Wire, fault
from trackserve.client import Client
from trackserve.engines.registry import open_pipeline
from trackserve.errors import RefusedError, TrackserveError, UnreachableError
from trackserve.serving.fleet import Fleet
from trackserve.serving.process import children
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.event import Hits, Int64

CLIENTS = 3
KILL_SECONDS, ROLL_SECONDS, CALM_SECONDS = 90.0, 300.0, 60.0
"""How often a process is killed and the fleet rolled; how long it is left alone at both ends."""
LOOK_SECONDS = 5.0
HOSTILE_A_SECOND = 20.0
PATIENCE = 120.0
GUARD_SECONDS = 10.0
"""Within which connections that a killed guard had taken may be found closed."""


class Use:
    """What clients do to a fleet, and what they got."""

    def __init__(self, fleet: Fleet, events: Sequence[Hits], labels: Sequence[Int64]) -> None:
        self.fleet, self.events, self.labels = fleet, events, labels
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.over = threading.Event()
        self.guard_killed = -GUARD_SECONDS
        """When the guard was last killed (``time.monotonic``, s)."""
        self._lock = threading.Lock()

    def ask(self, number: int, seed: int) -> None:
        """Ask for events of mixed sizes until it is over; small ones come most often."""
        rng = random.Random(f"{seed} {number}")
        url = self.fleet.urls["grpc" if number % 2 else "http"]
        weights = [2.0**-i for i in range(len(self.events))]
        with Client(url, timeout=PATIENCE, tries=1000) as client:
            while not self.over.is_set():
                (which,) = rng.choices(range(len(self.events)), weights)
                try:
                    labels = client.find_tracks(self.events[which]).labels
                    became = "answered" if np.array_equal(labels, self.labels[which]) else "wrong"
                except TrackserveError as error:
                    became = "lost"
                    self._fault(f"client {number}: {type(error).__name__}: {error}")
                self._count(became)

    def give_up(self, seed: int) -> None:
        """Ask with too little time now and then, as a client that gives up."""
        rng = random.Random(f"{seed} give up")
        with Client(self.fleet.urls["http"], timeout=0.05, tries=1) as client:
            while not self.over.wait(1.0):
                try:
                    client.find_tracks(rng.choice(self.events))
                    self._count("in time")
                except (UnreachableError, RefusedError, TrackserveError):
                    self._count("given up")

    def attack(self, seed: int) -> None:
        """Send hostile requests, slowly enough that they are not all the work."""
        wire = Wire(int(self.fleet.address.rpartition(":")[2]))
        columns = len(self.fleet.bundle.features.wire_columns)
        number = 0
        while not self.over.wait(1 / HOSTILE_A_SECOND):
            asked = request(random.Random(f"{seed} soak {number}"), columns)
            number += 1
            try:
                wrong = fault(asked, wire.send(asked))
            except TimeoutError:
                wrong = "no answer within ten seconds"
            self._count("hostile")
            killed = time.monotonic() - self.guard_killed < GUARD_SECONDS
            if killed and "closed without an answer" in wrong:
                self._count("closed by a kill")
                continue
            # While servers are killed some requests are refused with that reason.
            if (
                wrong
                and "broke off" not in wrong
                and "no server answers" not in wrong
                and "ended while" not in wrong
            ):
                self._fault(f"hostile {number}: {wrong}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text[:400])


def soak(
    bundle: Bundle, events: Sequence[Hits], *, hours: float, seed: int, folder: Path
) -> dict[str, Any]:
    """Use a fleet of two servers for ``hours``; return counts, faults and how everything went."""
    pipeline = open_pipeline(bundle)
    labels = [pipeline.find_tracks(hits).labels for hits in events]
    before = around()
    with Fleet(bundle, Settings(), servers=2, folder=folder / "fleet", port=0) as fleet:
        use = Use(fleet, events, labels)
        with ThreadPoolExecutor(CLIENTS + 2) as pool:
            asked = [pool.submit(use.ask, number, seed) for number in range(CLIENTS)]
            asked += [pool.submit(use.give_up, seed), pool.submit(use.attack, seed)]
            try:
                samples, done = _disturb(fleet, use, 3600 * hours, seed)
            finally:
                use.over.set()
            for each in asked:
                each.result()
    return _summary(use, samples, done, before, around())


def _disturb(
    fleet: Fleet, use: Use, seconds: float, seed: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Kill and roll at their times, and look at everything meanwhile; the last third is left alone but for use."""
    rng = random.Random(f"{seed} disturb")
    began, samples, done = time.monotonic(), [], Counter[str]()
    next_kill, next_roll = CALM_SECONDS, CALM_SECONDS + ROLL_SECONDS / 2
    while (passed := time.monotonic() - began) < seconds:
        samples.append(_sample(fleet, use, passed))
        if passed < 2 * seconds / 3:
            if passed > next_kill:
                next_kill += KILL_SECONDS
                done[_kill(fleet, use, rng)] += 1
            if passed > next_roll:
                next_roll += ROLL_SECONDS
                fleet.roll(fleet.bundle)
                done["rolls"] += 1
        use.over.wait(LOOK_SECONDS)
    samples.append(_sample(fleet, use, time.monotonic() - began))
    return samples, done


def _kill(fleet: Fleet, use: Use, rng: random.Random) -> str:
    """Kill one process of the fleet; return what it was."""
    server = rng.choice(fleet.members).server
    kind = rng.choice(("tritonserver", "model process", "guard"))
    pids = {
        "tritonserver": [server.pid],
        "model process": children(server.pid),
        "guard": [fleet.guard.pid],
    }[kind]
    if kind == "guard":
        use.guard_killed = time.monotonic()
    if pids:
        os.kill(rng.choice(pids), signal.SIGKILL)
    return f"killed: {kind}"


def _sample(fleet: Fleet, use: Use, seconds: float) -> dict[str, Any]:
    named = {member.name: member.server.pid for member in fleet.members}
    named |= {"guard": fleet.guard.pid, "supervisor and clients": os.getpid()}
    found = {name: vars(each) for name, each in processes(named).items()}
    # Children of this process are the others.
    found = {n: h for n, h in found.items() if not n.startswith("supervisor and clients/")}
    return {
        "seconds": seconds,
        "pids": named,
        "processes": found,
        **around(),
        "answered": use.counts["answered"],
    }


def _summary(
    use: Use,
    samples: list[dict[str, Any]],
    done: Counter[str],
    before: dict[str, float],
    after: dict[str, float],
) -> dict[str, Any]:
    """Return the result; in the last third no process is disturbed, so what grows there is growth."""
    total = samples[-1]["seconds"]
    calm = [s for s in samples if s["pids"] == samples[-1]["pids"]]
    names = sorted(samples[-1]["processes"])
    return {
        "hours": total / 3600,
        **dict(use.counts),
        "disturbed": dict(done),
        "fault_count": len(use.faults),
        "faults": use.faults[:50],
        "calm_seconds": calm[-1]["seconds"] - calm[0]["seconds"],
        "calm": {
            name: {
                kind: growth(calm, name, kind) for kind in ("memory_mb", "descriptors", "threads")
            }
            for name in names
        },
        "around": {"before": before, "last": {k: samples[-1][k] for k in before}, "after": after},
        "course": [
            {
                "seconds": round(s["seconds"]),
                "memory_mb": {
                    name: round(held["memory_mb"], 1) for name, held in s["processes"].items()
                },
                **{k: s[k] for k in before},
            }
            for s in samples[:: max(1, len(samples) // 60)]
        ],
    }
