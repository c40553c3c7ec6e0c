"""Serve the shipped bundle, send it two events, judge and draw the tracks that come back.

Run by ``make demo``; the pictures go to the folder ``demo``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.data import find_events
from trackserve.engines.registry import fastest
from trackserve.errors import TrackserveError
from trackserve.evaluate.display import draw_event
from trackserve.evaluate.report import evaluate_event
from trackserve.serving.process import interrupted_by_sigterm
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackserve.event import Tracks

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "demo"
PILEUPS = (20, 200)
REQUESTS = 3
"""How often each event is sent, to tell a latency."""


def main() -> None:
    """Run the demo."""
    bundle = read_bundle()
    cores = len(os.sched_getaffinity(0))
    engine = fastest()
    settings = Settings(engine=engine, threads={"pipeline": cores})
    began = time.perf_counter()
    with (
        interrupted_by_sigterm(),
        serve(bundle, settings, http_port=0, grpc_port=0, metrics_port=0) as server,
        Client(server.grpc_url) as client,
    ):
        print(f"tritonserver serves bundle {bundle.name} at {server.grpc_url}")
        print(
            f"ready after {time.perf_counter() - began:.1f} s, {engine} engine, {cores} threads\n"
        )
        columns = [show(pileup, client) for pileup in PILEUPS]
    for row in zip(*columns, strict=True):
        name = row[0][0]
        print(f"{name:34}" + "".join(f"{value:>26}" for _, value in row))
    print(
        "\nTargets are charged primary particles with pT > 1 GeV; found are those that share more\n"
        "than half of their hits, and of the track's, with one track. In brackets: 68 % intervals.\n"
        "Fakes and duplicates are counted over tracks of every momentum."
    )
    pictures = " and ".join(f"{PICTURES.name}/pu{pileup}.png" for pileup in PILEUPS)
    print(f"\nThe events are drawn in {pictures}. The server has stopped.")


def show(pileup: int, client: Client) -> list[tuple[str, str]]:
    """Send an event, draw its tracks, and return what to print of it: names and values."""
    (source,) = find_events(ROOT / f"examples/events/pu{pileup}")
    event = source.read()
    answers = [timed(lambda: client.find_tracks(event.hits)) for _ in range(REQUESTS)]
    tracks = answers[0][0]
    draw_event(
        event.hits,
        tracks,
        PICTURES / f"pu{pileup}.png",
        truth=event.truth,
        title=f"ttbar at pileup {pileup}",
    )
    judged = evaluate_event(event, tracks)
    headline, strict = judged.targets["headline"], judged.targets["strict"]
    return [
        ("", f"pileup {pileup}"),
        ("hits", f"{len(event.hits):,}"),
        ("tracks", f"{len(tracks):,}"),
        ("efficiency, |eta| < 4, 3+ hits", str(headline.efficiency)),
        ("efficiency, |eta| < 3, 6+ hits", str(strict.efficiency)),
        ("fake rate", str(judged.fakes)),
        ("duplicate rate", str(judged.duplicates)),
        (f"latency, median of {REQUESTS}", f"{median(s for _, s in answers):.2f} s"),
    ]


def timed(work: Callable[[], Tracks]) -> tuple[Tracks, float]:
    """Return a result and how long it took, s."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


if __name__ == "__main__":
    try:
        main()
    except TrackserveError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
