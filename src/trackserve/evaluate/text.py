"""An evaluation as aligned plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.evaluate.metrics import HARD_PT, HEADLINE, UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.evaluate.metrics import Binned
    from trackserve.evaluate.report import Evaluation


def blocks(result: Evaluation, variables: Sequence[str] = ()) -> list[str]:
    """Return every number that is not binned, and the bins of these variables, block by block."""
    tables = [_totals(result), _targets(result), _by_hits(result), _lost(result)]
    if result.stages:
        tables.append(_stages(result))
    for variable in variables:
        tables.append(_in_bins(result, variable))
        if variable in result.track_bins:
            tables.append(_tracks_in_bins(result, variable))
    return [aligned(rows) for rows in tables]


def _totals(result: Evaluation) -> list[list[str]]:
    score = "no weights"
    if not np.isnan(result.scores).any():
        score = f"{np.mean(result.scores):.4f}"
        if result.events > 1:
            score += f" +- {result.score_spread:.4f} per event"
    return [
        ["events", f"{result.events:,}"],
        ["hits", f"{result.hits:,}"],
        ["tracks", f"{result.fakes.total:,}"],
        ["fake rate", str(result.fakes)],
        [f"of tracks above {HARD_PT:g} GeV", str(result.hard_fakes)],
        ["duplicate rate", str(result.duplicates)],
        ["TrackML score", score],
    ]


def _targets(result: Evaluation) -> list[list[str]]:
    return [
        ["", "targets", "efficiency", "single majority", "perfect", "duplicates", "fakes"],
        *(
            [
                name,
                f"{c.efficiency.total:,}",
                *map(str, (c.efficiency, c.single_majority, c.perfect, c.duplicates, c.fakes)),
            ]
            for name, c in result.targets.items()
        ),
    ]


def _lost(result: Evaluation) -> list[list[str]]:
    died = list(result.targets[HEADLINE.name].losses)
    return [
        ["lost", *(name.replace("_", " ") for name in died), "of"],
        *(
            [name, *(f"{c.losses[d]:,}" for d in died), f"{c.efficiency.total:,}"]
            for name, c in result.targets.items()
        ),
    ]


def _stages(result: Evaluation) -> list[list[str]]:
    return [
        ["stage", "edges/event", "edge efficiency", "edge purity", "edge target purity"],
        *(
            [
                name,
                f"{c.edges / result.events:,.0f}",
                *map(str, (c.efficiency, c.purity, c.target_purity)),
            ]
            for name, c in result.stages.items()
        ),
    ]


def _by_hits(result: Evaluation) -> list[list[str]]:
    """Return the efficiency of each set by the number of hits of the particle, as rows."""
    ranges = [(n, n) for n in range(3, 10)] + [(10, 12), (13, 15), (16, 99)]
    names = [f"{a}" if a == b else f"{a}-{b}" if b < 99 else f"{a} or more" for a, b in ranges]
    rows = [["efficiency by hits, %", *names]]
    for name, counts in result.targets.items():
        binned = counts.bins["hits"]
        first = np.round(binned.edges[:-1] + 0.5)
        row = [name]
        for low, high in ranges:
            inside = (first >= low) & (first <= high)
            total = binned.total[inside].sum()
            row.append(f"{100 * binned.passed[inside].sum() / total:.1f}" if total else "-")
        rows.append(row)
    return rows


def _in_bins(result: Evaluation, variable: str) -> list[list[str]]:
    """Return the efficiency of each set in bins of a variable, in percent, with the targets in each."""
    unit = f" ({UNITS[variable]})" if UNITS[variable] else ""
    rows = [[f"efficiency by {variable}{unit}", "from", "to", "targets", "%", "interval"]]
    for name, counts in result.targets.items():
        rows.extend([name, *cells] for cells in _cells(counts.bins[variable]))
    return rows


def _tracks_in_bins(result: Evaluation, variable: str) -> list[list[str]]:
    unit = f" ({UNITS[variable]})" if UNITS[variable] else ""
    rows = [[f"tracks by {variable}{unit}", "from", "to", "tracks", "%", "interval"]]
    for name, binned in result.track_bins[variable].items():
        rows.extend([name, *cells] for cells in _cells(binned))
    return rows


def _cells(binned: Binned) -> list[list[str]]:
    """Return the bins in which something was counted."""
    low, high = binned.interval
    return [
        [
            f"{binned.edges[i]:.4g}",
            f"{binned.edges[i + 1]:.4g}",
            f"{binned.total[i]:,}",
            f"{100 * binned.value[i]:.2f}",
            f"{100 * low[i]:.2f}-{100 * high[i]:.2f}",
        ]
        for i in np.flatnonzero(binned.total)
    ]


def aligned(rows: list[list[str]]) -> str:
    """Return rows of cells as columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
