"""The tables of docs/gpu.md, made of what the studies wrote."""

from __future__ import annotations

from typing import Any

from studies.markdown import markdown

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
CARDS = {"sm_80": "A100", "sm_90": "H100", "sm_100": "B100", "gfx942": "MI300"}


def resource_table(record: dict[str, Any]) -> str:
    """Return registers, shared memory and occupancy of every kernel in the bundle's precision."""
    found = {(row["kernel"], row["target"]): row for row in _of(record, "bfloat16")}
    exact = {(row["kernel"], row["target"]): row for row in _of(record, "float32")}
    heading = ("kernel", *(f"{CARDS[target]} ({target})" for target in TARGETS))
    rows = [
        (name, *(_resources(found[name, target], exact[name, target]) for target in TARGETS))
        for name in dict.fromkeys(row["kernel"] for row in record["kernels"])
    ]
    return markdown([heading, *rows])


def _of(record: dict[str, Any], precision: str) -> list[dict[str, Any]]:
    return [row for row in record["kernels"] if row["precision"] == precision]


def _resources(row: dict[str, Any], exact: dict[str, Any]) -> str:
    spilled = max(row["spilled"], exact["spilled"])
    parts = f"{row['registers']}, {row['shared'] / 1024:.1f} kB, {100 * row['occupancy']:.0f} %"
    parts += f" ({100 * exact['occupancy']:.0f} %)"
    return parts + (f", **{spilled} B spilled**" if spilled else "")


KERNELS = {"gpu-kernels": resource_table}


def stage_table(record: dict[str, Any]) -> str:
    """Return of each stage of a pileup-200 event what it asks for, and its predicted time."""
    event = [*record["counts"]][-1]
    counts, predicted = record["counts"][event], record["predicted"][event]
    heading = ("stage", "operations + kernels", "waits", "MB", "multiply-adds (10⁹)")
    rows = [(*heading, *(f"{card}, ms (bound by)" for card in predicted))]
    for stage, work in counts["stages"].items():
        products = (work["matrix"] + work["vector"] + work["double"]) / 1e9
        asked = (f"{work['operations']} + {work['kernels']}", str(work["waits"]))
        asked += (f"{work['bytes'] / 1e6:.0f}", f"{products:.2f}")
        times = (each["stages"][stage] for each in predicted.values())
        rows.append((stage, *asked, *(f"{t['ms']:.2f} ({t['bound']})" for t in times)))
    return markdown(rows)


def event_table(record: dict[str, Any]) -> str:
    """Return the predicted time and rate of each event on each card."""
    rows = [
        (
            "event",
            "hits",
            "card",
            "one event, ms",
            "of the device, ms",
            "of the host, ms",
            "events/s",
        )
    ]
    for event, cards in record["predicted"].items():
        hits = record["counts"][event]["sizes"]["hits"]
        for card, found in cards.items():
            times = (found["ms"], found["device_ms"], found["host_ms"])
            cells = (*(f"{t:.2f}" for t in times), f"{found['events_per_second']:.0f}")
            rows.append((event, f"{hits:,}", card, *cells))
    return markdown(rows)


PREDICTION = {"gpu-prediction-stages": stage_table, "gpu-prediction": event_table}


def speed_table(record: dict[str, Any]) -> str:
    """Return the measured milliseconds of each stage beside those predicted."""
    found = record["stages"]
    rows = [("stage", "measured, ms", *(f"{card}, predicted" for card in found["predicted"]))]
    for stage, took in found["ms"].items():
        if stage == "cut":
            continue  # a part of the filter
        predicted = (
            each["ms"] if stage == "whole" else each["stages"][stage]["ms"]
            for each in found["predicted"].values()
        )
        rows.append((stage, f"{took['median']:.2f}", *(f"{ms:.2f}" for ms in predicted)))
    return markdown(rows)


def flight_table(record: dict[str, Any]) -> str:
    """Return events a second by the number in flight, in process and served."""
    rows = [("in flight", "in process, events/s", "served, events/s")]
    for count, rate in record["in_process"].items():
        rows.append((count, f"{rate:.1f}", f"{record['served'][count]:.1f}"))
    return markdown(rows)


MEASURED = {"gpu-speed": speed_table, "gpu-in-flight": flight_table}
