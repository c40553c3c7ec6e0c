"""Plots of loads: throughput, latency, and where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.files import whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from trackserve.load.report import Report


def write_plots(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write the plots of several loads on one server as PNG files; returns their paths."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in (("throughput", _throughput), ("latency", _latency), ("time", _time)):
        figure = Figure(figsize=(6, 4), layout="constrained")
        draw(figure.subplots(), reports)
        path = folder / f"{name}.png"
        with whole(path) as beside:
            figure.savefig(beside, format="png", dpi=120)
        paths.append(path)
    return paths


def _axis(axes: Axes, reports: Sequence[Report]) -> list[float]:
    closed = all(report.load.concurrency for report in reports)
    axes.set_xlabel("requests in flight" if closed else "requests offered per second")
    return [report.load.concurrency if closed else report.load.rate for report in reports]


def _throughput(axes: Axes, reports: Sequence[Report]) -> None:
    x = _axis(axes, reports)
    axes.plot(x, [report.throughput for report in reports], "o-")
    axes.set(ylabel="events answered a second", ylim=(0, None))


def _latency(axes: Axes, reports: Sequence[Report]) -> None:
    x = _axis(axes, reports)
    for name in ("p50", "p95", "p99"):
        values = [1000 * getattr(report.latency, name) for report in reports]
        axes.plot(x, values, "o-", label=name)
    axes.set(ylabel="latency, ms", ylim=(0, None))
    axes.legend()


def _time(axes: Axes, reports: Sequence[Report]) -> None:
    names = [str(report.load) for report in reports]
    below = [0.0] * len(reports)
    for part in dict.fromkeys(part for report in reports for part in report.spent):
        values = [1000 * report.spent.get(part, 0.0) for report in reports]
        axes.bar(names, values, bottom=below, label=part)
        below = [b + v for b, v in zip(below, values, strict=True)]
    axes.set(ylabel="mean time of an answered event, ms")
    axes.legend()
