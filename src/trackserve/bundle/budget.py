"""The tables [extent] and [budget] of bundle.toml: where its detector's hits lie, what an event may need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackserve.errors import BundleError
from trackserve.pipeline.budget import KNOWN, Budget, Extent

if TYPE_CHECKING:
    from collections.abc import Mapping


def event_budget(extent: Mapping[str, Any], budget: Mapping[str, Any], detector: str) -> Budget:
    """Return the budget of a bundle's events from the two tables, either of which may be empty.

    Raises :class:`BundleError` that names the key.
    """
    found = _extent(extent) if extent else KNOWN.get(detector, Extent())
    return Budget(found).changed(budget)


def _extent(table: Mapping[str, Any]) -> Extent:
    r, z = table.get("r"), table.get("z")
    numbers = [*(r if isinstance(r, list) else [r]), z]
    right = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    if table.keys() != {"r", "z"} or len(numbers) != 3 or not right:
        message = f"extent is {dict(table)}; expected r = [least, greatest] and z = greatest, mm"
        raise BundleError(message)
    return Extent((float(numbers[0]), float(numbers[1])), float(numbers[2]))


def budget_tables(budget: Budget) -> dict[str, Any]:
    """Return [extent] and [budget] as ``bundle.toml`` has them."""
    tables: dict[str, Any] = {
        "budget": {name: value for name, value in vars(budget).items() if name != "extent"}
    }
    if budget.extent.known:
        tables["extent"] = {"r": list(budget.extent.r), "z": budget.extent.z}
    return tables
