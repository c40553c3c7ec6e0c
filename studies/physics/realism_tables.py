"""The tables of docs/simulation.md, made from ``results/realism.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LARGE = 100
"""From here on numbers have no decimals."""


def distances(record: Mapping[str, Any]) -> str:
    """Return the distance of each distribution."""
    rows = [(row["name"], f"{row['distance']:.3f}") for row in record["rows"] if row["distance"]]
    return markdown([("distribution", "distance"), *rows])


def everything(record: Mapping[str, Any]) -> str:
    """Return every number of both samples, a table for each distribution."""
    parts = []
    for row in record["rows"]:
        table = markdown(
            [
                ("", *row["labels"]),
                ("real", *map(_number, row["real"])),
                ("simulated", *map(_number, row["simulated"])),
            ]
        )
        parts.append(f"**{row['name'].replace('|', chr(92) + '|')}**\n\n{table}")
    return "\n\n".join(parts)


def _number(value: float) -> str:
    if value >= LARGE:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 2 else f"{value:.3f}"


REALISM: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "simulation-distances": distances,
    "simulation-tables": everything,
}
