"""The tables [fit] and [quality] of bundle.toml: the detector as the fit sees it, and its quality model."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from trackserve.errors import BundleError
from trackserve.pipeline.fit import FitSettings, Region
from trackserve.pipeline.quality import QualityModel

if TYPE_CHECKING:
    from collections.abc import Mapping


def fit_settings(table: Mapping[str, Any]) -> FitSettings | None:
    """Return the settings in [fit], None for an empty table; raises :class:`BundleError`."""
    if not table:
        return None
    _check_names("fit", table, [each.name for each in fields(FitSettings)])
    regions = table["regions"]
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        message = f"fit.regions is {regions!r}; expected a list of tables"
        raise BundleError(message)
    made = []
    for region in regions:
        _check_names("fit.regions", region, [each.name for each in fields(Region)])
        made.append(
            Region(
                _number("fit.regions.r", region["r"]),
                _number("fit.regions.z", region["z"]),
                barrel=_numbers("fit.regions.barrel", region["barrel"]),  # type: ignore[arg-type]  # Region checks how many
                disc=_numbers("fit.regions.disc", region["disc"]),  # type: ignore[arg-type]  # Region checks how many
            )
        )
    field_z = _numbers("fit.field_z", table["field_z"])
    return FitSettings(field_z, _numbers("fit.field", table["field"]), tuple(made))


def quality_model(table: Mapping[str, Any]) -> QualityModel | None:
    """Return the weights in [quality], None for an empty table; raises :class:`BundleError`."""
    if not table:
        return None
    names = [each.name for each in fields(QualityModel)]
    _check_names("quality", table, names)
    return QualityModel(*(_number(f"quality.{name}", table[name]) for name in names))


def _check_names(owner: str, table: Mapping[str, Any], names: list[str]) -> None:
    if set(table) != set(names):
        message = f"{owner} has {', '.join(sorted(table))}; expected {', '.join(names)}"
        raise BundleError(message)


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        message = f"{name} is {value!r}; expected a number"
        raise BundleError(message)
    return float(value)


def _numbers(name: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, list):
        message = f"{name} is {values!r}; expected a list of numbers"
        raise BundleError(message)
    return tuple(_number(name, value) for value in values)
