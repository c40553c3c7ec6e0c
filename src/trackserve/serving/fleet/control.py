"""Rolling a fleet from another process on its machine, through the socket in its folder."""

from __future__ import annotations

import http.client
from pathlib import Path

from trackserve.bundle.named import split_bundle_name
from trackserve.errors import InputError, ServerError
from trackserve.serving.guard.clusters import CONTROL
from trackserve.serving.sockets import ask

ROLL_PATH = "/fleet/roll"


def roll(folder: Path, bundle: Path | str) -> str:
    """Roll the fleet that runs in a folder to another bundle; return its report.

    ``bundle`` is a folder or the name of one that ships, with a name to serve it by as in ``NAME=FOLDER``.

    Raises :class:`InputError` for a bundle that can't be taken and :class:`ServerError` if there is
    no fleet or its roll fails.
    """
    try:
        status, text = ask(folder / CONTROL, "POST", ROLL_PATH, _absolute(str(bundle)))
    except OSError as error:
        message = f"no fleet answers in {folder} ({error.strerror or error}); give its --folder"
        raise ServerError(message) from None
    if status == http.client.OK:
        return text
    raise (InputError if status == http.client.BAD_REQUEST else ServerError)(text)


def _absolute(bundle: str) -> str:
    """Return the place of a bundle as the fleet's process understands it, which may run in another folder."""
    name, place = split_bundle_name(bundle)
    where = str(Path(place).absolute()) if Path(place).exists() else place
    return f"{name}={where}" if name else where
