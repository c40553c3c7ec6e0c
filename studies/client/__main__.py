"""What a client spends on an event: processor and wall time, by who finds its tracks and over which link.

    python -m studies.client [--events FOLDER] [--rounds 5] [--cpp BUILD] [--links] [--out FILE]

Takes the first event of the folder (default: the shipped one of pileup 200). ACTS' triplet seeding and
Kalman filter run in the client (the faster configuration of docs/real-events.md, without handing the hits
over), then the pipeline in the client, then clients in processes of their own ask a server on this machine: Python over
gRPC and HTTP, plain and compact, and C++ if ``--cpp`` names where it was built (with
TRACKSERVE_CLIENT_TESTS=ON). With ``--links`` (as root) they ask beyond links of 1 and 10 Gbit/s, too, with
round trips of 1 and 20 ms. Processor time is that of the client's process with all its threads. ``beyond the
server`` is the wall time less what the server's log says a request waited and was worked on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.client.encodings import positions
from studies.client.links import HERE, link, relay
from studies.client.pictures import draw_spent
from studies.clock import spread
from studies.physics.ckf import CONFIGURATIONS, KalmanFilter
from studies.record import RESULTS, ROOT, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.contract.compact import STEP
from trackserve.data import find_events
from trackserve.engines.registry import fastest, open_pipeline
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.event import Hits
    from trackserve.serving.service import Service

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
LINKS = [(gbit, round_trip) for gbit in (1, 10) for round_trip in (0.001, 0.02)]
Spent = dict[str, float]


def in_the_client(find: Callable[[Hits], object], hits: Hits, rounds: int) -> list[Spent]:
    """Return what it takes to find tracks in this process, but for the first time."""
    spent = []
    for _ in range(rounds + 1):
        processor, wall = time.process_time(), time.perf_counter()
        find(hits)
        wall = time.perf_counter() - wall
        spent.append({"processor": time.process_time() - processor, "wall": wall})
    return spent[1:]


class Clients:
    """Client processes that ask a server for one event, stored in a folder."""

    def __init__(self, service: Service, hits: Hits, folder: Path, cpp: Path | None) -> None:
        self._service, self._cpp = service, cpp
        self._event = folder / "event.npy"
        np.save(self._event, positions(hits))
        positions(hits).tofile(self._event.with_suffix(".f32"))

    def python(
        self, url: str, rounds: int, step: float | None, within: Sequence[str] = ()
    ) -> list[Spent]:
        """Return what each request took, and what of its wall time wasn't the server's."""
        before = len(self._worked())
        command = [*within, sys.executable, "-m", "studies.client.ask", url, str(self._event)]
        command += [str(rounds), *([] if step is None else [str(step)])]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        spent: list[Spent] = json.loads(done.stdout)
        served = self._worked()[before + 1 :]
        for each, seconds in zip(spent, served, strict=True):
            each["beyond the server"] = each["wall"] - seconds
        return spent

    def c_plus_plus(self, url: str, rounds: int, step: float | None) -> list[Spent]:
        """Return the mean over the requests."""
        assert self._cpp is not None
        event = str(self._event.with_suffix(".f32"))
        form = [] if step is None else ["--compact", str(step)]
        command = [str(self._cpp / "ask_many"), url, str(rounds), "1", *form, event]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stderr.splitlines()[-1])
        return [{name: found[name] / rounds for name in ("processor", "wall")}]

    def _worked(self) -> list[float]:
        """Return the seconds that each answered request was the server's, as its log says."""
        seconds = []
        for line in self._service.log().splitlines():
            if '"event": "request"' in line and '"answered"' in line:
                found = json.loads(line[line.index("{") :])
                seconds.append(found["waited"] + found["worked"])
        return seconds


def measure(hits: Hits, rounds: int, cpp: Path | None, *, links: bool) -> dict[str, Any]:
    """Return what was spent, by way."""
    found: dict[str, list[Spent]] = {}
    kalman = KalmanFilter(CONFIGURATIONS["fast, trackml"])
    seconds = [sum(kalman.find_tracks(hits)[1].values()) for _ in range(rounds)]
    found["seeding and CKF in the client"] = [{"processor": s, "wall": s} for s in seconds]
    found["pipeline in the client"] = in_the_client(open_pipeline().find_tracks, hits, rounds)
    settings = Settings(engine=fastest(), log_requests="all")
    with (
        tempfile.TemporaryDirectory(prefix="trackserve-") as folder,
        serve(read_bundle(), settings, **FREE_PORTS) as service,
    ):
        clients = Clients(service, hits, Path(folder), cpp)
        forms = {"": None, ", compact": STEP}
        for protocol, url in (("gRPC", service.grpc_url), ("HTTP", service.http_url)):
            for form, step in forms.items():
                found[f"Python, {protocol}{form}"] = clients.python(url, rounds, step)
        for form, step in forms.items() if cpp is not None else ():
            found[f"C++, gRPC{form}"] = clients.c_plus_plus(service.grpc_url, rounds, step)
        for gbit, round_trip in LINKS if links else ():
            with link(gbit) as within, relay(service.ports["grpc"], round_trip) as port:
                for form, step in forms.items():
                    name = f"Python, gRPC{form}; {gbit} Gbit/s, {1e3 * round_trip:.0f} ms"
                    found[name] = clients.python(f"grpc://{HERE}:{port}", rounds, step, within)
    return {
        name: {what: spread([each[what] for each in spent]) for what in spent[0]}
        for name, spent in found.items()
    }


def show(record: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{record['hits']:,} hits; milliseconds")
    for name, row in record["spent"].items():
        numbers = "".join(f"{1e3 * spread['median']:10.1f} {what}" for what, spread in row.items())
        print(f"{name:46}{numbers}")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, default=ROOT / "examples/events/pu200")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpp", type=Path, help="where clients/cpp was built with its tests")
    parser.add_argument("--links", action="store_true", help="also beyond links, as root")
    parser.add_argument("--out", type=Path, default=RESULTS / "client.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/client.png")
    options = parser.parse_args()
    hits = find_events(options.events)[0].read(truth=False).hits
    spent = measure(hits, options.rounds, options.cpp, links=options.links)
    record = {
        "installation": installation(),
        "hits": len(hits),
        "rounds": options.rounds,
        "spent": spent,
    }
    write_json(options.out, record)
    draw_spent(record, options.picture)
    show(record)


if __name__ == "__main__":
    main()
