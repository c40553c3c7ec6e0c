"""Settings of a service as a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from trackserve.errors import InputError
from trackserve.files import write_text
from trackserve.serving.settings import Settings


def read_settings(path: Path | str) -> Settings:
    """Read settings; what the file doesn't name has its default. Raises :class:`InputError`."""
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not TOML: {error}"
        raise InputError(message) from None
    known = {field.name: _default(field) for field in fields(Settings)}
    for name, value in found.items():
        if name not in known:
            message = f"{path} has {name!r}; expected {', '.join(known)}"
            raise InputError(message)
        _check_kind(f"{path}: {name}", value, known[name])
    try:
        return Settings(**found)
    except InputError as error:
        message = f"{path}: {error}"
        raise InputError(message) from None


def write_settings(settings: Settings, path: Path | str, comment: str = "") -> None:
    """Write settings, every one, below a comment."""
    values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines += [f"{name} = {json.dumps(v)}" for name, v in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    write_text(Path(path), "\n".join(lines) + "\n")


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _check_kind(what: str, value: object, default: object) -> None:
    if what.endswith(": budget"):  # its values are checked by name
        right, expected = isinstance(value, dict), "a table of bounds by name"
    elif isinstance(default, Mapping):
        right = isinstance(value, dict) and all(type(n) is int for n in value.values())
        expected = "a table of whole numbers by model"
    elif isinstance(default, float):
        right, expected = type(value) in {int, float}, "a number"
    else:
        right, expected = type(value) is type(default), f"such as {json.dumps(default)}"
    if not right:
        message = f"{what} is {value!r}; expected {expected}"
        raise InputError(message)
