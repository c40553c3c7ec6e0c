"""The tables of docs/scaling.md, made of what the studies wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from studies.markdown import markdown
from studies.record import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable


def planned(record: dict[str, Any]) -> str:
    """Return the plan's latencies beside measured ones."""
    rows: list[tuple[str, ...]] = [
        ("servers", "busy", "requests", "p50, ms", "p95, ms", "p99, ms", "refused")
    ]
    for row in record["rows"]:
        pairs = zip(row["planned"], row["measured"], strict=True)
        times = (f"{1e3 * p:.0f} : {1e3 * m:.0f} ({100 * (p / m - 1):+.0f} %)" for p, m in pairs)
        refused = f"{100 * row['refused planned']:.1f} : {100 * row['refused']:.1f} %"
        busy = f"{100 * row['load']:.0f} %"
        rows.append((str(row["servers"]), busy, str(row["requests"]), *times, refused))
    return f"{markdown(rows)}\n\nPlanned : measured. {record['installation']['processor']}."


def hosts(record: dict[str, Any]) -> str:
    """Return what requests met while something happened to the hosts."""
    head = (
        "what happens",
        "requests",
        "lost",
        "wrong",
        "p50, s",
        "p99, s",
        "longest, s",
        "besides",
    )
    rows: list[tuple[str, ...]] = [head]
    for row in record["rows"]:
        counts = (f"{row[name]:,}" for name in ("requests", "lost", "wrong"))
        times = (f"{row[name]:.1f}" for name in ("p50", "p99", "longest"))
        besides = (f"{name} after {row[name]:.1f} s" for name in ("noticed", "back") if name in row)
        took = [f"took {row['took']:.0f} s"] if "took" in row else []
        rows.append((row["phase"], *counts, *times, ", ".join([*besides, *took])))
    return f"{markdown(rows)}\n\n{record['at once']} requests in flight. {record['installation']['processor']}."


FARM_RATE, BUSY, CORES = 100_000, 0.8, 16
"""Events a second of a trigger farm; how busy its servers are; cores of a server without a GPU."""
BYTES_IN, BYTES_OUT = 12, 8
"""Bytes of a hit to the server (x, y, z in float32) and of its label back (int64)."""


def farm(spent: dict[str, Any]) -> str:
    """Return the servers of a trigger farm and what each sends, by measured and predicted times of an event."""
    name, hits = "speed{}.json", spent["hits"]
    old = {of: _read(name.format(of))["seconds_per_event"] for of in ("", "-avx2")}
    both_passes = spent["spent"]["pipeline in the client"]["processor"]["median"]
    here = "BF16" if "avx512_bf16" in spent["installation"]["processor"] else "AVX2"
    measured = {
        "`hl-lhc`, 16 cores with BF16": CORES / old[""],
        "`hl-lhc`, 16 cores with AVX2": CORES / old["-avx2"],
        f"`trackml`, 16 cores with {here}": CORES / both_passes,
    }
    cards = _read("gpu-prediction.json")["predicted"]["pileup 200"]
    predicted = {
        f"`trackml`, one {card}, predicted": found["events_per_second"]
        for card, found in cards.items()
    }
    rows: list[tuple[str, ...]] = [
        ("server", "events/s of one", "servers", "to each, Gbit/s", "back from each, Gbit/s")
    ]
    for server, rate in (measured | predicted).items():
        each = BUSY * rate
        sent = (f"{8e-9 * each * hits * size:.2f}" for size in (BYTES_IN, BYTES_OUT))
        rows.append((server, f"{rate:.1f}", f"{FARM_RATE / each:,.0f}", *sent))
    to, back = (8e-12 * FARM_RATE * hits * size for size in (BYTES_IN, BYTES_OUT))
    note = (
        f"{FARM_RATE:,} events/s of {hits:,} hits, servers {100 * BUSY:.0f} % busy. In all {to:.2f} Tbit/s to the servers "
        f"and {back:.2f} back. The times of a core are of one process; how sixteen share a memory was not measured."
    )
    return f"{markdown(rows)}\n\n{note}"


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


SCALING: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "scaling-plan": ("plan.json", planned),
    "scaling-hosts": ("hosts.json", hosts),
    "scaling-farm": ("client.json", farm),
}
