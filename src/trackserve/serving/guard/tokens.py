"""A file of hashed tokens: who may send requests, for how long, how many and how large.

[alice]
sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
expires = 2027-06-30              # the last day; without it the token holds until it is taken out
requests_per_second = 50          # without it as many as the server takes
max_request_bytes = 2_000_000     # without it as large as the server takes

The token itself is with its client alone: the file's reader can't send requests.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_KINDS: dict[str, tuple[type, ...]] = {
    "sha256": (str,),
    "expires": (date,),
    "requests_per_second": (int, float),
    "max_request_bytes": (int,),
}


@dataclass(frozen=True)
class Client:
    """A client that may send requests: the hash of its token, the time (s since 1970) it ends, limits."""

    name: str
    sha256: str
    ends: float | None = None
    requests_per_second: float | None = None
    max_request_bytes: int | None = None


def new_token() -> tuple[str, str]:
    """Return a token of 256 random bits, for the client, and its hash, for the file."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def read_clients(path: Path) -> list[Client]:
    """Read the file; raises :class:`InputError` for what isn't one."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"the tokens in {path} can't be read: {error}"
        raise InputError(message) from None
    clients = [_client(path, name, table) for name, table in found.items()]
    if len({client.sha256 for client in clients}) < len(clients):
        message = f"{path}: two clients have the same token; give each its own"
        raise InputError(message)
    return clients


def _client(path: Path, name: str, table: Any) -> Client:
    where = f"{path}: {name}"
    if not _NAME.fullmatch(name) or not isinstance(table, dict):
        message = f"{where} is not a client; expected a table [name] of letters, digits, _ . @ -"
        raise InputError(message)
    for key, value in table.items():
        if key not in _KINDS:
            message = f"{where} has {key!r}; expected {', '.join(_KINDS)}"
            raise InputError(message)
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            message = f"{where}: {key} is {value!r}; expected {_KINDS[key][-1].__name__}"
            raise InputError(message)
    sha256 = table.get("sha256", "")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        message = (
            f"{where}: sha256 is {sha256!r}; expected the token's SHA-256 in 64 hexadecimal digits"
        )
        raise InputError(message)
    for key in ("requests_per_second", "max_request_bytes"):
        if key in table and not table[key] > 0:
            message = f"{where}: {key} is {table[key]}; expected more than 0"
            raise InputError(message)
    return Client(
        name,
        sha256.lower(),
        _end_of(table.get("expires")),
        table.get("requests_per_second"),
        table.get("max_request_bytes"),
    )


def _end_of(last: date | datetime | None) -> float | None:
    """Return when a token ends: at the time given, or when the day given is over (UTC)."""
    if last is None:
        return None
    if isinstance(last, datetime):
        return (last if last.tzinfo else last.replace(tzinfo=UTC)).timestamp()
    day = datetime(last.year, last.month, last.day, tzinfo=UTC)
    return (day + timedelta(days=1)).timestamp()
