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
        figure = Figure(figsize=(7.5, 4), layout="constrained")
        draw(figure.subplots(), reports)
        path = folder / f"{name}.png"
        with whole(path) as beside:
            figure.savefig(beside, format="png", dpi=120)
        paths.append(path)
    return paths


def _axis(axes: Axes, reports: Sequence[Report]) -> list[float]:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - only plots need it

    closed = all(report.load.concurrency for report in reports)
    axes.set_xlabel("requests in flight" if closed else "requests offered per second")
    if closed:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    _legend(axes)


def _time(axes: Axes, reports: Sequence[Report]) -> None:
    from matplotlib import colormaps  # noqa: PLC0415 - only plots need it

    names = [str(report.load) for report in reports]
    parts = list(dict.fromkeys(part for report in reports for part in report.spent))
    colours = colormaps["tab10" if len(parts) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    below = [0.0] * len(reports)
    for part, colour in zip(parts, colours, strict=False):
        values = [1000 * report.spent.get(part, 0.0) for report in reports]
        axes.bar(names, values, bottom=below, label=part, color=colour)
        below = [b + v for b, v in zip(below, values, strict=True)]
    axes.set(ylabel="mean time of an answered event, ms")
    axes.tick_params(axis="x", labelrotation=20 if len(names) > 3 else 0)
    _legend(axes, reverse=True)


def _legend(axes: Axes, *, reverse: bool = False) -> None:
    """Put the legend beside the plot, where it covers nothing; reversed, as parts are stacked."""
    handles, labels = axes.get_legend_handles_labels()
    if reverse:
        handles, labels = handles[::-1], labels[::-1]
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
