"""The service under study: every number of docs/service-study.md but those of the tuning.

    python -m studies.service --small DIR --pu20 DIR --pu200 DIR [--perf-analyzer FILE] [--quick]

Sections that are done are kept in a folder beside the result, so that it goes on after a stop;
``--again`` measures again. What is compared alternates within one run, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from studies.clock import spread
from studies.record import RESULTS, write_json
from studies.service.fleet import fleet
from studies.service.overload import killed, overload
from studies.service.perf_analyzer import against_perf_analyzer
from studies.service.study import BUSY, CORES, FREE_PORTS, KINDS, Study, plain
from studies.service.tables import SERVICE, overloads
from studies.service.workers import in_process
from trackserve.client import Client
from trackserve.installation import facts
from trackserve.load.load import Load
from trackserve.load.report import measure
from trackserve.serving.service import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.event import Hits

RESULT = RESULTS / "service.json"


def overhead(study: Study) -> dict[str, Any]:
    """Compare the time of an event through the client with that in this process, one at a time.

    One instance serves: a second one has nothing to do.
    """
    pipeline = study.open()
    settings = study.settings if study.given else replace(study.settings, instances={})
    found = {}
    with (
        serve(study.bundle, settings, **FREE_PORTS) as server,
        Client(server.grpc_url) as grpc,
        Client(server.http_url) as http,
    ):
        ways = {"in process": pipeline, "gRPC": grpc, "HTTP": http}
        for kind, number, rounds in (
            ("small", 10, study.repeats(60)),
            ("pu200", 4, study.repeats(8)),
        ):
            hits = study.hits[kind][:number]
            for way in ways.values():
                way.find_tracks(hits[0])
            # Small events go all in a row, as in real use, large ones in turn.
            rows = [hits] if kind == "small" else [[each] for each in hits]
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            order = list(ways)
            for _ in tqdm(range(rounds), desc=f"overhead {kind}"):
                for row in rows:
                    for way in order:
                        seconds[way] += _times(ways[way].find_tracks, row)
                order.append(order.pop(0))
            every = {way: np.array(each) for way, each in seconds.items()}
            inside = every["in process"]
            found[kind] = {
                "hits": spread([len(each) for each in hits]),
                "rounds": rounds,
                "ms": {way: spread((1000 * s).tolist()) for way, s in every.items()},
                "more_ms": {w: float(np.median(1000 * (s - inside))) for w, s in every.items()},
                "ratio": {w: float(np.median(s / inside)) for w, s in every.items()},
            }
    return found


def _times(find: Callable[[Hits], Any], events: Sequence[Hits]) -> list[float]:
    seconds = []
    for hits in events:
        start = time.perf_counter()
        find(hits)
        seconds.append(time.perf_counter() - start)
    return seconds


def throughput(study: Study) -> dict[str, Any]:
    """Compare the served events a second with those of as many independent processes as cores.

    Served with the settings that `tune` found, at a few requests at once and, where these are short, at more.
    """
    found: dict[str, Any] = {}
    for kind, full, loads in (
        ("small", 4.0, (BUSY, 2 * BUSY)),
        ("pu20", 4.0, (BUSY, 2 * BUSY)),
        ("pu200", 15.0, (BUSY,)),
    ):
        settings, seconds = study.tuned(kind), study.seconds(full)
        rates: dict[str, list[float]] = {"in process": []}
        wrong = 0
        with serve(study.bundle, settings, **FREE_PORTS) as server:
            events = study.events(server.grpc_url, kind)
            urls = [(server.grpc_url, False), (server.grpc_url, True), (server.http_url, False)]
            if study.quick:  # each way once
                urls = [urls[KINDS.index(kind)]]
            for _ in tqdm(range(study.repeats(4)), desc=f"throughput {kind}"):
                rates["in process"].append(in_process(study, kind, seconds))
                for url, shared in urls:
                    for at_once in loads[:1] if study.quick else loads:
                        load = Load(
                            at_once,
                            seconds=seconds,
                            warm_up=study.seconds(1.0),
                            processes=1,
                            shared_memory=shared,
                        )
                        report = measure(url, events, load)
                        wrong += report.counts["sent"] - report.counts["answered"]
                        way = f"{report.protocol}, {at_once} at once"
                        rates.setdefault(way, []).append(report.throughput)
        medians = {way: float(np.median(rate)) for way, rate in rates.items()}
        best = max((way for way in medians if way != "in process"), key=medians.__getitem__)
        found[kind] = {
            "settings": plain(settings),
            "events_per_s": medians,
            "all": rates,
            "best": best,
            "ratio": float(np.median(np.divide(rates[best], rates["in process"]))),
            "not_answered_rightly": wrong,
        }
    return found


SECTIONS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "overhead": overhead,
    "throughput": throughput,
    "perf_analyzer": against_perf_analyzer,
    "overload": overload,
    "killed": killed,
    "fleet": fleet,
}


def headline(found: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that have a goal."""
    return {
        "overhead_ratio_pu200": found["overhead"]["pu200"]["ratio"]["gRPC"],
        "overhead_ms_small": found["overhead"]["small"]["more_ms"]["gRPC"],
        "small_events_per_s": max(
            rate
            for way, rate in found["throughput"]["small"]["events_per_s"].items()
            if way != "in process"
        ),
        "throughput_vs_inprocess": found["throughput"]["pu200"]["ratio"],
        **{
            name: found["overload"][kind]["goodput"]
            for name, kind in (("overload_goodput", "pu200"), ("overload_goodput_pu20", "pu20"))
            if kind in found["overload"]
        },
        "lost_events": sum(each["counts"]["lost"] for each in overloads(found).values())
        + found["killed"]["lost"]
        + sum(killed["lost"] for killed in found["fleet"]["killed"].values()),
    }


def main() -> None:
    """Measure what isn't there yet and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.service", description=__doc__.splitlines()[0]
    )
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--bundle", type=Path, metavar="DIR")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="as `tune` writes them")
    parser.add_argument("--perf-analyzer", type=Path, metavar="FILE", help="its program")
    parser.add_argument("--quick", action="store_true", help="a second each, for a trial")
    parser.add_argument("--again", action="store_true", help="repeat existing measurements")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="SECTION",
        help="measure these again, keep the others",
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULT, metavar="JSON")
    options = parser.parse_args()
    study = Study(options)
    kept = options.output.with_suffix(".parts")
    kept.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    if options.only:
        found = json.loads(options.output.read_text())
        found = {name: found[name] for name in SECTIONS if name not in options.only}
    for name, section in SECTIONS.items():
        part = kept / f"{name}.json"
        if name in found:
            continue
        if options.again or not part.exists():
            start = time.monotonic()
            found[name] = section(study)
            found[name]["took_s"] = time.monotonic() - start
            write_json(part, found[name])
        found[name] = json.loads(part.read_text())
        print(f"{name}: {json.dumps(found[name])[:1500]}", flush=True)
    result = {
        **headline(found),
        "quick": options.quick,
        "cores": CORES,
        "settings": plain(study.settings),
        "installation": {name: facts()[name] for name in ("processor", "python")},
        **found,
    }
    write_json(options.output, result)
    for part in kept.iterdir():
        part.unlink()
    kept.rmdir()
    print(options.output)
    for make in SERVICE.values():
        print(f"\n{make(result)}")


if __name__ == "__main__":
    main()
