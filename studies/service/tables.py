"""The tables of docs/service-study.md, from what ``python -m studies.service`` wrote."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable

Record = dict[str, Any]
NAMES = {"small": "1,300 hits", "pu20": "pileup 20", "pu200": "pileup 200"}
OVERLOADS = {
    **NAMES,
    "pu20 Envoy": "pileup 20, behind Envoy",
    "pu20 apart": "pileup 20, server and load on separate cores",
    "pu20 Envoy apart": "pileup 20, behind Envoy, server and load on separate cores",
}


def goals(result: Record) -> str:
    """Return the numbers that have a goal, beside it."""
    recovery = max(each["recovery_s"] for each in overloads(result).values())
    rows = [
        ("number", "measured", "goal"),
        (
            "latency served over in process, pileup 200",
            f"{result['overhead_ratio_pu200']:.3f}",
            "1.05",
        ),
        ("latency added by serving, 1,300 hits", f"{result['overhead_ms_small']:.2f} ms", "2 ms"),
        ("1,300-hit events a second", f"{result['small_events_per_s']:.0f}", "200"),
        *(
            (
                f"throughput over independent processes, {NAMES[kind]}",
                f"{result['throughput'][kind]['ratio']:.2f}",
                "0.95",
            )
            for kind in ("pu200", "pu20", "small")
        ),
        *(
            (
                f"goodput at ten times capacity, {OVERLOADS[name]}",
                f"{found['goodput']:.2f}",
                "0.9",
            )
            for name, found in overloads(result).items()
        ),
        ("recovery after overload, longest", f"{recovery:.1f} s", "5 s"),
        ("events lost", str(result["lost_events"]), "0"),
    ]
    quick = " A trial of a few seconds each: not to be quoted." if result["quick"] else ""
    text = f"{result['installation']['processor']}; {result['cores']} cores for server and load.{quick}"
    return f"{text}\n\n{markdown(rows)}"


def overhead(result: Record) -> str:
    """Return an event's time in process and through the client."""
    rows = [("events", "configuration", "median ms", "quartiles", "added, ms", "ratio")]
    for kind in ("small", "pu200"):
        found = result["overhead"][kind]
        for way, ms in found["ms"].items():
            rows.append(
                (
                    NAMES[kind],
                    way,
                    f"{ms['median']:.1f}",
                    f"{ms['low']:.1f} to {ms['high']:.1f}",
                    f"{found['more_ms'][way]:.2f}",
                    f"{found['ratio'][way]:.3f}",
                )
            )
    return markdown(rows)


def throughput(result: Record) -> str:
    """Return events a second, in process and served."""
    rows = [
        (
            "events",
            "independent processes /s",
            "gRPC /s",
            "gRPC, shared memory /s",
            "HTTP /s",
            "best configuration",
            "best over processes",
        )
    ]
    for kind, name in NAMES.items():
        found = result["throughput"][kind]
        rates = [
            _best(found["events_per_s"], way)
            for way in ("in process", "grpc", "grpc with shared memory", "http")
        ]
        settings = found["settings"]
        instances, batch = max(settings["instances"].values()), settings["batch"]
        how = f"{found['best'].replace('grpc', 'gRPC').replace('http', 'HTTP')}, {instances} instances"
        how += f", batch {batch}" if batch > 1 else ""
        rows.append((name, *rates, how, f"{found['ratio']:.2f}"))
    return markdown(rows)


def _best(events_per_s: dict[str, float], way: str) -> str:
    """Return the highest rate of a way of sending, at any number at once; a trial measures only one."""
    rates = [rate for at, rate in events_per_s.items() if at.split(",")[0] == way]
    return f"{max(rates):.3g}" if rates else "not measured"


def perf_analyzer(result: Record) -> str:
    """Return both load tools' numbers on the same server."""
    found = result["perf_analyzer"]
    if "skipped" in found:
        return f"Not run: {found['skipped']}."
    rows = [
        (
            "load",
            "events/s, perf_analyzer",
            "ours",
            "ratio",
            "p95 ms, perf_analyzer",
            "ours",
            "ratio",
        )
    ]
    for load, each in found.items():
        if load == "took_s":
            continue
        (rate, p95), (own_rate, own_p95) = (
            [median(column) for column in zip(*each[tool], strict=True)]
            for tool in ("perf_analyzer", "trackserve bench")
        )
        rows.append(
            (
                load.replace("small", NAMES["small"]).replace("pu20", NAMES["pu20"]),
                *(f"{rate:.1f}", f"{own_rate:.1f}", f"{each['throughput_ratio']:.2f}"),
                *(f"{p95:.1f}", f"{own_p95:.1f}", f"{each['p95_ratio']:.2f}"),
            )
        )
    return markdown(rows)


def overloads(result: Record) -> dict[str, Record]:
    """Return what was measured of each overload, by its name."""
    return {name: found for name, found in result["overload"].items() if name in OVERLOADS}


def overload(result: Record) -> str:
    """Return what happened at ten times the capacity, and which processes took the cores."""
    columns = [_overload(each) for each in overloads(result).values()]
    rows = [("", *(OVERLOADS[name] for name in overloads(result)))]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    killed = result["killed"]
    text = (
        f"Model processes and then tritonserver, killed during {killed['requests']:,} requests: "
        f"{killed['lost']} lost, {killed['wrong']} wrong, {killed['twice']} answered twice."
    )
    return f"{markdown(rows)}\n\n{text}"


def _overload(found: Record) -> dict[str, str]:
    counts, memory, cores = (found[name] for name in ("counts", "memory_mb", "cores"))
    when = ("before", "first_half", "peak", "end")
    others = [cores.get(name, 0.0) for name in ("tritonserver", "envoy", "load")]
    return {
        "capacity before and after, events/s": f"{found['capacity_per_s']:.1f} and "
        f"{found['capacity_after_per_s']:.1f}",
        "offered, events/s": f"{found['offered_per_s']:.0f} for {found['seconds']:.0f} s",
        "answered, each as in process": f"{counts['answered']:,} of {counts['sent']:,}",
        "refused": f"{counts['refused']:,}",
        "wrong, failed, lost": f"{counts['wrong']}, {counts['failed']}, {counts['lost']}",
        "answered per second": f"{found['goodput_per_s']:.1f}",
        "goodput over capacity": f"{found['goodput']:.2f}",
        "latency of answered events, p50 and p99": _percentiles(found["latency_ms"], 0),
        "latency of refusals, p50 and p99": _percentiles(found["refusal_ms"], 1),
        "refusal message": f"`{found['refusal'].get('says', '')}`",
        "recovery time": f"{found['recovery_s']:.1f} s",
        "memory before, in the first half, at the peak, at the end": ", ".join(
            f"{memory[each]:.0f}" for each in when
        )
        + " MB",
        "cores: the models, tritonserver, Envoy, the load": ", ".join(
            f"{each:.2f}" for each in (sum(cores.values()) - sum(others), *others)
        ),
    }


def _percentiles(ms: Record | None, digits: int) -> str:
    return f"{ms['p50']:.{digits}f} and {ms['p99']:.{digits}f} ms" if ms else "none"


def fleet(result: Record) -> str:
    """Return two servers beside one, and what a roll and kills did."""
    found = result["fleet"]
    rows = [("events", "configuration", "events/s", "range", "p95 ms", "wrong or missing answers")]
    for kind, ways in found["loads"].items():
        for way, each in ways.items():
            rates = each["events_per_s"]
            rows.append(
                (
                    NAMES[kind],
                    way,
                    f"{median(rates):.3g}",
                    f"{min(rates):.3g} to {max(rates):.3g}",
                    f"{median(each['p95_ms']):.0f}",
                    str(each["not_answered_rightly"]),
                )
            )
    rolled = found["rolled"]
    sentences = [
        f"Rolled to another bundle in {rolled['seconds']:.0f} s, with {rolled['requests']:,} requests "
        f"meanwhile from a client without retries: {rolled['errors']} errors, {rolled['wrong']} wrong.",
        *(
            f"{victim} killed during {each['requests']:,} requests: {each['lost']} lost, "
            f"{each['wrong']} wrong, {each['twice']} answered twice."
            for victim, each in found["killed"].items()
        ),
    ]
    return "\n\n".join([markdown(rows), *sentences])


SERVICE: dict[str, Callable[[Record], str]] = {
    "service-goals": goals,
    "service-overhead": overhead,
    "service-throughput": throughput,
    "service-perf-analyzer": perf_analyzer,
    "service-overload": overload,
    "service-fleet": fleet,
}
"""Each made part of docs/service-study.md that comes from service.json."""
