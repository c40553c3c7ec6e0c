"""The tables of docs/scaling.md, made of what the studies wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

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


SCALING: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "scaling-plan": ("plan.json", planned),
    "scaling-hosts": ("hosts.json", hosts),
}
