"""The tables of docs/reliability.md, from what ``python -m studies.reliability`` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable

Record = dict[str, Any]
PROTOCOLS = {"grpc": "gRPC", "http": "HTTP"}
WAYS = {"guard": "behind the guard", "bare": "without"}


def guard(result: Record) -> str:
    """Return what the guard costs, beside the limits."""
    limits = result["limits"]
    rows = [("what", "protocol", "behind the guard", "without", "cost", "limit")]
    for protocol, name in PROTOCOLS.items():
        latency = result["pu200"][protocol]["latency"]
        ms = latency["ms"]
        rows.append(
            (
                f"latency, pileup 200 ({result['pu200']['hits']:,} hits)",
                name,
                *(f"{ms[way]['median']:.0f} ms" for way in WAYS),
                f"{100 * (latency['ratio'] - 1):+.1f} %",
                f"{100 * (limits['pu200_ratio'] - 1):.0f} %",
            )
        )
    for protocol, name in PROTOCOLS.items():
        latency = result["small"][protocol]["latency"]
        ms = latency["ms"]
        rows.append(
            (
                f"latency, {result['small']['hits']:,} hits",
                name,
                *(f"{ms[way]['median']:.2f} ms" for way in WAYS),
                f"{latency['more_ms']:+.2f} ms",
                f"{limits['small_more_ms']:g} ms",
            )
        )
    for protocol, name in PROTOCOLS.items():
        found = result["small"][protocol]["throughput"]
        rows.append(
            (
                f"throughput, {result['small']['hits']:,} hits, {found['at_once']} at once",
                name,
                *(f"{found['events_per_s'][way]['median']:.0f} /s" for way in WAYS),
                f"{100 * (found['ratio'] - 1):+.1f} %",
                f"{100 * (limits['throughput_ratio'] - 1):.0f} %",
            )
        )
    return f"{result['installation']['processor']}.\n\n{markdown(rows)}"


def fuzz(result: Record) -> str:
    """Return what the campaigns sent and what became of it."""
    total = result["total"]
    requests, seconds = (
        total["requests"],
        sum(c["requests"]["seconds"] for c in result["campaigns"]),
    )
    restarts = sum(sum(c["requests"]["restarts"].values()) for c in result["campaigns"])
    slowest = max(c["requests"]["slowest_s"] for c in result["campaigns"])
    rows = [
        ("input", "made", "faults", "besides"),
        (
            "requests",
            f"{requests['requests']:,}",
            f"{requests.get('fault_count', 0):,}",
            f"{seconds / 60:.0f} minutes; {restarts} restarts; "
            f"{requests.get('hangs', 0)} unanswered after 10 s; slowest answer {slowest:.1f} s",
        ),
        (
            "good events between them",
            f"{requests['good']:,}",
            f"{requests.get('wrong', 0):,}",
            "exact labels expected",
        ),
        *(
            (
                kind,
                f"{total[kind]['made']:,}",
                f"{total[kind].get('fault_count', 0):,}",
                f"{total[kind].get('read', 0):,} read, {total[kind].get('refused', 0):,} refused",
            )
            for kind in ("files", "bundles")
        ),
    ]
    return markdown(rows)


def soak(result: Record) -> str:
    """Return what a soak's processes held while nothing disturbed them."""
    rows = [
        (
            "process",
            "memory at the start, MB",
            "half-time",
            "end",
            "MB/h, second half",
            "descriptors",
            "threads",
        )
    ]
    for name, found in result["calm"].items():
        memory, opened, threads = (found[k] for k in ("memory_mb", "descriptors", "threads"))
        rows.append(
            (
                name,
                *(f"{memory[when]:.0f}" for when in ("first", "half", "last")),
                f"{memory['per_hour_second_half']:+.1f}",
                *(f"{each['first']:.0f} to {each['last']:.0f}" for each in (opened, threads)),
            )
        )
    disturbed = ", ".join(f"{count} {what}" for what, count in sorted(result["disturbed"].items()))
    around = result["around"]
    text = (
        f"{result['hours']:.2f} hours: {result.get('answered', 0):,} events answered, "
        f"{result.get('lost', 0)} lost, {result.get('wrong', 0)} wrong; {result.get('hostile', 0):,} hostile "
        f"requests, {result['fault_count']} faults; {disturbed}. The table is of the last "
        f"{result['calm_seconds'] / 60:.0f} minutes, in which nothing was killed. Left behind at the end: "
        f"{around['after']['regions'] - around['before']['regions']:.0f} regions of shared memory, "
        f"{around['after']['folders'] - around['before']['folders']:.0f} folders."
    )
    return f"{text}\n\n{markdown(rows)}"


RELIABILITY: dict[str, tuple[str, Callable[[Record], str]]] = {
    "reliability-guard": ("guard.json", guard),
    "reliability-fuzz": ("fuzz.json", fuzz),
    "reliability-soak": ("soak.json", soak),
}
"""By the name of a part of the document: the result's file, and what makes the table."""
