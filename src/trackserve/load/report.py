"""What a load measured: counts, throughput, latency, and where the time went."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.client.connection import split_url
from trackserve.client.statistics import Statistics, read_statistics
from trackserve.contract.tensors import split_name
from trackserve.load.load import drive
from trackserve.load.worker import RequestStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trackserve.load.load import Events, Load, Records

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Latency:
    """Seconds from the moment at which a request was to be sent until its answer was read."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    longest: float

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Latency:
        """Summarise records; NaN where there are none."""
        if not len(rows):
            nan = float("nan")
            return cls(0, nan, nan, nan, nan, nan)
        seconds = rows["done"] - rows["arrival"]
        p50, p95, p99 = np.percentile(seconds, PERCENTILES).tolist()
        return cls(len(rows), float(seconds.mean()), p50, p95, p99, float(seconds.max()))


@dataclass(frozen=True)
class Report:
    """The result of one load.

    ``counts`` are the measured requests by outcome. ``throughput`` is the events answered rightly a
    second while the load was measured, ``spent`` the mean latency of these by place (s):
    ``client`` (waiting to be sent, reading the answer), ``network`` (gRPC or HTTP on both sides and
    the way between), and the server's parts; a request's wait for its turn is the network's where the
    metrics weren't read. ``kinds`` is the latency by kind of event.
    """

    url: str
    load: Load
    counts: Mapping[str, int]
    throughput: float
    latency: Latency
    refusal: Latency
    kinds: Mapping[str, Latency]
    spent: Mapping[str, float]
    mean_hits: float

    @property
    def protocol(self) -> str:
        """How the tensors went."""
        return split_url(self.url)[0] + (" with shared memory" if self.load.shared_memory else "")

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; NaN as None."""
        found: dict[str, Any] = _no_nan({**asdict(self), "protocol": self.protocol})
        return found


def measure(
    url: str,
    events: Events,
    load: Load,
    *,
    metrics_url: str | None = None,
    progress: bool = False,
) -> Report:
    """Load a server and report what it did; its metrics hold the stages of a monolith."""
    marks: list[Statistics] = []

    def mark() -> None:
        suffix = split_name(events.model.name)[1]
        marks.append(read_statistics(url, metrics_url).of(suffix, events.bundle))

    records = drive(url, events, load, progress=progress, marks=(mark, mark))
    before, after = marks
    return summarise(url, events, load, records, after.since(before))


def summarise(url: str, events: Events, load: Load, records: Records, server: Statistics) -> Report:
    """Return the report of records and of the server's statistics over the same time."""
    rows = records.measured
    right = rows["outcome"] == RequestStatus.ANSWERED
    counted = Counter(rows["outcome"].tolist())
    all_right = records.rows[records.rows["outcome"] == RequestStatus.ANSWERED]
    in_time = (all_right["done"] >= records.begin) & (all_right["done"] < records.end)
    group = events.groups[rows["event"]]
    answered = rows[right]
    return Report(
        url=url,
        load=load,
        counts={"sent": len(rows)} | {o.name.lower(): counted[o] for o in RequestStatus},
        throughput=int(in_time.sum()) / load.seconds,
        latency=Latency.of(answered),
        refusal=Latency.of(rows[rows["outcome"] == RequestStatus.REFUSED]),
        kinds={name: Latency.of(rows[right & (group == i)]) for i, name in enumerate(events.names)},
        spent=_spent(answered, server.spent()),
        mean_hits=float(events.hits[answered["event"]].mean()) if len(answered) else float("nan"),
    )


def _spent(rows: NDArray[Any], server: Mapping[str, float]) -> dict[str, float]:
    if not len(rows):
        return {}
    client = rows["sent"] - rows["arrival"] + rows["done"] - rows["received"]
    trip = float((rows["received"] - rows["sent"]).mean())
    inside = dict(server)
    whole = inside.pop("server")
    untold = "" if "turn" in server else ", turn" if inside else ", server"
    return {
        "client": float(client.mean()),
        f"network{untold}": max(trip - whole, 0.0),
        **inside,
        "server, else": max(whole - sum(inside.values()), 0.0),
    }


def table(reports: Sequence[Report]) -> str:
    """Return reports as text: a line for each load, then where the time of each went."""
    heads = ("load", "events/s", "p50 ms", "p95 ms", "p99 ms", *_columns(reports))
    lines = [
        [
            str(report.load),
            f"{report.throughput:.1f}",
            *(f"{1000 * getattr(report.latency, f'p{p}'):.1f}" for p in PERCENTILES),
            *(f"{report.counts[c]:,}" for c in _columns(reports)),
        ]
        for report in reports
    ]
    parts = list(dict.fromkeys(part for report in reports for part in report.spent))
    times = [
        [str(r.load), *(f"{1000 * r.spent[p]:.2f}" if p in r.spent else "" for p in parts)]
        for r in reports
    ]
    found = [_aligned([list(heads), *lines])]
    if len(reports[0].kinds) > 1:
        kinds = [
            [str(r.load), name, str(k.count), *(f"{1000 * s:.1f}" for s in (k.p50, k.p95, k.p99))]
            for r in reports
            for name, k in r.kinds.items()
        ]
        found.append(
            _aligned([["load", "events", "answered", "p50 ms", "p95 ms", "p99 ms"], *kinds])
        )
    found.append("mean time of an answered event, ms\n" + _aligned([["load", *parts], *times]))
    return "\n\n".join(found)


def _columns(reports: Sequence[Report]) -> list[str]:
    """Return the outcomes that there were; refused and lost always."""
    shown = {"answered", "refused", "lost"}
    return [
        c
        for c in reports[0].counts
        if c in shown or any(r.counts[c] for r in reports if c != "sent")
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    )


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
