"""Two servers behind Envoy beside one, on the same cores; rolled and killed under load."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from studies.service.overload import REQUESTS, ask_and_kill
from studies.service.study import BUSY
from trackserve.bundle import BUNDLE_FILE, Bundle, read_bundle
from trackserve.client import AsyncClient
from trackserve.errors import TrackserveError
from trackserve.load.load import Load
from trackserve.load.report import measure
from trackserve.serving.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from studies.service.study import Study
    from trackserve.event import Float32
    from trackserve.load.load import Events

SERVERS = 2


def fleet(study: Study) -> dict[str, Any]:
    """Compare one server, the same behind Envoy, and two with half of its instances each."""
    one = replace(study.settings, shared_memory=False)
    halves = {model: max(1, one.instances.get(model, 1) // SERVERS) for model in one.models}
    half = replace(one, instances=halves)
    with (
        tempfile.TemporaryDirectory() as folder,
        Fleet(study.bundle, one, servers=1, folder=Path(folder, "one"), port=0) as single,
        Fleet(study.bundle, half, servers=SERVERS, folder=Path(folder, "two"), port=0) as double,
    ):
        server = single.members[0].server
        urls = {
            "one server": server.grpc_url,
            "one behind Envoy": single.address,
            "two behind Envoy": double.address,
        }
        loads = {}
        for kind in ("small",) if study.quick else ("small", "pu20"):
            events = study.events(server.grpc_url, kind)
            loads[kind] = _compare(urls, events, study.seconds(8.0), study.repeats(3))
        small = study.events(server.grpc_url, "small")
        rolled = _roll(double, _copied(study.bundle, Path(folder, "bundle")), small)
        requests = study.requests(REQUESTS)
        victims = {
            "Envoy": lambda: [double.guard.pid],
            "a tritonserver": lambda: [double.members[0].server.pid],
        }
        killed = {
            name: ask_and_kill(double.address, small, requests, pids)
            for name, pids in victims.items()
        }
        instances = {"one server": dict(one.instances), "each of two": halves}
        return {"instances": instances, "loads": loads, "rolled": rolled, "killed": killed}


def _compare(
    urls: dict[str, str], events: Events, seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return events a second, p95 (ms) and requests that weren't answered rightly, of each address."""
    found: dict[str, dict[str, Any]] = {
        way: {"events_per_s": [], "p95_ms": [], "not_answered_rightly": 0} for way in urls
    }
    for _ in tqdm(range(rounds), desc=f"fleet {events.names[0]}"):
        for way, url in urls.items():
            report = measure(url, events, Load(BUSY, seconds=seconds, processes=1))
            found[way]["events_per_s"].append(report.throughput)
            found[way]["p95_ms"].append(1000 * report.latency.p95)
            missing = report.counts["sent"] - report.counts["answered"]
            found[way]["not_answered_rightly"] += missing
    return found


def _copied(bundle: Bundle, folder: Path) -> Bundle:
    """Return a copy of a bundle that finds the same tracks and has another digest."""
    shutil.copytree(bundle.path, folder)
    text = (folder / BUNDLE_FILE).read_text(encoding="utf-8")
    (folder / BUNDLE_FILE).write_text(f"# another copy\n{text}", encoding="utf-8")
    return read_bundle(folder)


def _roll(fleet: Fleet, bundle: Bundle, events: Events) -> dict[str, Any]:
    """Roll a fleet under load; count the answers of clients that don't ask twice."""
    ended = threading.Event()
    seconds = []

    def roll() -> None:
        start = time.monotonic()
        try:
            fleet.roll(bundle)
            seconds.append(time.monotonic() - start)
        finally:
            ended.set()

    thread = threading.Thread(target=roll)
    thread.start()
    counts = asyncio.run(_ask_until(ended, fleet.address, events))
    thread.join()
    return {"seconds": seconds[0], **counts}


async def _ask_until(ended: threading.Event, url: str, events: Events) -> dict[str, int]:
    counts = {"requests": 0, "errors": 0, "wrong": 0}
    tables, expected = events.tables, events.expected or []

    def sent() -> Iterator[Float32]:
        yield from itertools.takewhile(lambda _: not ended.is_set(), itertools.cycle(tables))

    async with AsyncClient(url, tries=1, concurrency=BUSY) as client:
        async for answer in client.find_all(sent()):
            counts["requests"] += 1
            if isinstance(answer.outcome, TrackserveError):
                counts["errors"] += 1
            elif not np.array_equal(answer.outcome.labels, expected[answer.index % len(tables)]):
                counts["wrong"] += 1
    return counts
