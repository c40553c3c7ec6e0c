"""What every study writes: a JSON file, whole or not at all, and on what it was measured."""

from __future__ import annotations

import json
from pathlib import Path

from trackserve import __version__
from trackserve.files import write_text
from trackserve.installation import facts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
"""The numbers that the documents show."""


def installation() -> dict[str, str]:
    """Return the facts of this installation, but not where on the machine it lies."""
    return {**facts(), "version": __version__}


def write_json(path: Path, record: object) -> None:
    """Write a record; a ratio of nothing is null, never NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
