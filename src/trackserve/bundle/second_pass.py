"""The table [second_pass] of bundle.toml: what is otherwise where tracks are looked for a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND_PASS = "second_pass"
TABLES = ("neighbours", "filter", "triplets", "tracks", "quality")
"""The tables of a bundle that the second pass may change; networks, features and detector are the same."""


def second_description(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the description of the second pass, as if it were a bundle's own; None where there is none.

    Raises :class:`BundleError` for what a second pass can't change.
    """
    if SECOND_PASS not in description:
        return None
    changes = description[SECOND_PASS]
    if not isinstance(changes, dict):
        message = f"{SECOND_PASS} is {changes!r}; expected a table"
        raise BundleError(message)
    for name, table in changes.items():
        if name not in TABLES or name not in description or not isinstance(table, dict):
            message = (
                f"{SECOND_PASS}.{name} is not a table that changes one of the bundle's; "
                f"expected some of {', '.join(TABLES)}"
            )
            raise BundleError(message)
    return _changed({n: v for n, v in description.items() if n != SECOND_PASS}, changes)


def _changed(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with these changes, those of the tables in it included."""
    changed = dict(table)
    for name, value in changes.items():
        old = table.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            changed[name] = _changed(old, value)
        else:
            changed[name] = value
    return changed
