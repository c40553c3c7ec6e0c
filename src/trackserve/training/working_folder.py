"""The folder ``BUNDLE.training``: what is trained there, the numbers chosen so far, the way out."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.errors import InputError
from trackserve.files import whole_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Chosen:
    """The radius and the cuts that a training has chosen, kept in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def choose(self, name: str, choice: Callable[[], float]) -> None:
        """Choose a number and keep it, unless this training has chosen it earlier."""
        chosen = self._read()
        if name not in chosen:
            chosen[name] = choice()
            write_text(self._path, json.dumps(chosen, indent=1))

    def _read(self) -> dict[str, float]:
        if not self._path.is_file():
            return {}
        chosen: dict[str, float] = json.loads(self._path.read_text(encoding="utf-8"))
        return chosen


def claim(folder: Path, what: dict[str, Any]) -> None:
    """Note in the working folder what is trained there; raise InputError if it is something else."""
    note = folder / "training.json"
    text = json.dumps(what, indent=1, sort_keys=True)
    if note.is_file() and note.read_text(encoding="utf-8") != text:
        message = (
            f"{folder} holds a training of other events or another recipe; remove it to start "
            "again, or give the same events and recipe to go on with it"
        )
        raise InputError(message)
    write_text(note, text)


def publish(folder: Path, bundle: Path) -> None:
    """Copy the finished bundle out of the working folder to its place, whole or not at all."""
    with whole_folder(bundle) as beside:
        for member in (BUNDLE_FILE, *(f"{name}.onnx" for name in read_bundle(folder).networks)):
            shutil.copy2(folder / member, beside / member)
