"""What every benchmark writes: a JSON file, whole or not at all, and on what it was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trackserve import __version__
from trackserve.installation import facts

if TYPE_CHECKING:
    from pathlib import Path


def installation() -> dict[str, str]:
    """Return the facts of this installation, but not where on the machine it lies."""
    return {**facts(), "version": __version__}


def write_json(path: Path, record: object) -> None:
    """Write a record beside and then renamed; a ratio of nothing is null, never NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)
