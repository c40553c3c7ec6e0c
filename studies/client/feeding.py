"""How many clients one server feeds: client processes in step and out of step, to saturation.

    python -m studies.client.feeding [--work 3] [--rounds 4] [--most 16] [--gpu-rate RATE] [--out FILE]

A client is a process that works for ``--work`` seconds (it sleeps: this machine hasn't a core for each)
and then asks for the tracks of an event. In step, all ask at the same time and wait for each other; out of step, they
begin spread over the work and never wait. From the rate at saturation follows how many client
cores one server keeps busy in a chain where tracking in the client (its seconds are taken from client.json) is a
given share of an event's work; with ``--gpu-rate`` also for a server of that rate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.client.encodings import positions
from studies.clock import spread
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.data import find_events
from trackserve.engines.registry import fastest
from trackserve.event import Hits
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Tracking's share of an event's work in a client that tracks itself."""


def be_a_client(url: str, event: str, work: float) -> None:
    """Read lines ``DELAY COUNT``; after each wait, work and ask COUNT times, and print begin and end of each."""
    hits = Hits.from_positions(np.load(event))
    with Client(url, timeout=600.0, tries=1000) as client:
        client.description  # noqa: B018  # connects
        print("ready", flush=True)
        for line in sys.stdin:
            delay, count = line.split()
            time.sleep(float(delay))
            times = []
            for _ in range(int(count)):
                time.sleep(work)
                begin = time.monotonic()
                client.find_tracks(hits)
                times.append((begin, time.monotonic()))
            print(json.dumps(times), flush=True)


def start(url: str, event: Path, work: float) -> subprocess.Popen[str]:
    """Start a client, and return it once it is connected."""
    command = [
        sys.executable,
        "-m",
        "studies.client.feeding",
        "--client",
        url,
        str(event),
        str(work),
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    client: subprocess.Popen[str] = subprocess.Popen(command, **pipes)
    assert client.stdout is not None
    client.stdout.readline()
    return client


def ask(
    clients: list[subprocess.Popen[str]], rounds: int, work: float, *, in_step: bool
) -> dict[str, Any]:
    """Return the rate (events a second) and the seconds of a request."""
    began, times = time.monotonic(), []
    for _ in range(rounds if in_step else 1):
        for number, client in enumerate(clients):
            assert client.stdin is not None
            delay = 0.0 if in_step else work * number / len(clients)
            client.stdin.write(f"{delay} {1 if in_step else rounds}\n")
            client.stdin.flush()
        times += [json.loads(client.stdout.readline()) for client in clients if client.stdout]
    if in_step:
        rate = len(clients) * rounds / (time.monotonic() - began)
    else:
        rate = sum(len(own) / (own[-1][1] - own[0][0] + work) for own in times)
    return {"rate": rate, "seconds": spread([end - begin for own in times for begin, end in own])}


def measure(hits: Hits, most: int, rounds: int, work: float) -> list[dict[str, Any]]:
    """Return a row for each number of clients: 1, 2, 4, ..., ``most``."""
    rows = []
    cores = len(os.sched_getaffinity(0))
    settings = Settings(engine=fastest(), instances={"pipeline": cores})
    with (
        tempfile.TemporaryDirectory(prefix="trackserve-") as folder,
        serve(read_bundle(), settings, **FREE_PORTS) as service,
    ):
        event = Path(folder) / "event.npy"
        np.save(event, positions(hits))
        clients: list[subprocess.Popen[str]] = []
        try:
            while len(clients) < most:
                more = max(1, len(clients))
                clients += [start(service.grpc_url, event, work) for _ in range(more)]
                for in_step in (True, False):
                    found = ask(clients, rounds, work, in_step=in_step)
                    rows.append({"clients": len(clients), "in step": in_step, **found})
        finally:
            for client in clients:
                client.kill()
                client.communicate()
    return rows


def cores_kept_busy(rate: float, tracking: float, share: float) -> float:
    """Return the client cores that a server of this rate (events a second) keeps busy.

    A client that tracks itself spends ``tracking`` seconds an event on it, which is ``share`` of all its work; one
    that asks a server does only the rest of it. What asking itself takes of its time is left out.
    """
    return rate * tracking * (1 - share) / share


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw rate and time of a request by the number of clients, and cores kept busy by the share."""
    figure = Figure(figsize=(12, 3.6))
    rates, seconds, cores = figure.subplots(1, 3)
    for in_step, name in ((True, "in step"), (False, "out of step")):
        rows = [row for row in record["rows"] if row["in step"] == in_step]
        numbers = [row["clients"] for row in rows]
        rates.plot(numbers, [row["rate"] for row in rows], "o-", label=name)
        seconds.plot(numbers, [row["seconds"]["median"] for row in rows], "o-", label=name)
    rates.set(xlabel="clients", ylabel="events a second", ylim=(0, None))
    seconds.set(xlabel="clients", ylabel="median time of a request, s", ylim=(0, None))
    for axis in (rates, seconds):
        axis.set_xscale("log", base=2)
        axis.set_xticks(numbers, [str(number) for number in numbers])
    for name, kept in record["cores"].items():
        cores.plot(record["shares"], kept, "o-", label=name)
    cores.set(xlabel="tracking's share of the work", ylabel="client cores of one server")
    cores.set_yscale("log")
    for axis in (rates, seconds, cores):
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, default=ROOT / "examples/events/pu200")
    parser.add_argument("--work", type=float, default=3.0, help="between two requests, s")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--most", type=int, default=16)
    parser.add_argument("--gpu-rate", type=float, help="predicted events a second of a GPU server")
    parser.add_argument("--spent", type=Path, default=RESULTS / "client.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "feeding.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/feeding.png")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        be_a_client(options.client[0], options.client[1], float(options.client[2]))
        return
    hits = find_events(options.events)[0].read(truth=False).hits
    spent = json.loads(options.spent.read_text())["spent"]
    tracking = next(iter(spent.values()))["processor"]["median"]
    rows = measure(hits, options.most, options.rounds, options.work)
    rates = {"this machine": max(row["rate"] for row in rows)}
    if options.gpu_rate:
        rates[f"a GPU of {options.gpu_rate:g} events/s, predicted"] = options.gpu_rate
    kept = {name: [cores_kept_busy(r, tracking, s) for s in SHARES] for name, r in rates.items()}
    record = {
        **{"installation": installation(), "hits": len(hits), "rows": rows, "rates": rates},
        **{"work": options.work, "tracking": tracking, "shares": SHARES, "cores": kept},
    }
    write_json(options.out, record)
    draw(record, options.picture)


if __name__ == "__main__":
    main()
