"""The picture of docs/client.md: what a client spends on an event, by who finds its tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path


def draw_spent(record: dict[str, Any], path: Path) -> None:
    """Draw processor and wall time of each way, with the goal of 3 ms."""
    names = list(record["spent"])[::-1]
    figure = Figure(figsize=(11, 0.32 * len(names) + 1.2))
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"processor": "processor time of the client, ms", "wall": "wall time of the event, ms"}
    for axis, (what, title) in zip(axes, titles.items(), strict=True):
        spreads = [record["spent"][name][what] for name in names]
        values = [1e3 * spread["median"] for spread in spreads]
        axis.barh(names, values, color="tab:blue")
        for row, value in enumerate(values):
            axis.annotate(
                f" {value:,.0f}" if value > 100 else f" {value:.1f}",
                (value, row),
                va="center",
                fontsize=8,
            )
        axis.set_xlabel(title)
    # From a few milliseconds to seconds; events all take about as long.
    axes[0].set_xscale("log")
    axes[0].set_xlim(left=1.0)
    axes[0].set_xlim(
        right=4 * max(1e3 * each["processor"]["median"] for each in record["spent"].values())
    )
    axes[1].margins(x=0.2)
    axes[0].axvline(3.0, color="tab:red", linewidth=1, linestyle=":")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
