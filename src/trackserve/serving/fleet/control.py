"""Rolling a fleet from another process on its machine, through the socket in its folder."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from trackserve.errors import InputError, ServerError
from trackserve.serving.guard.clusters import CONTROL
from trackserve.serving.sockets import ask

if TYPE_CHECKING:
    from pathlib import Path

ROLL_PATH = "/fleet/roll"


def roll(folder: Path, bundle: Path) -> str:
    """Roll the fleet that runs in a folder to another bundle; return its report.

    Raises :class:`InputError` for a bundle that can't be taken and :class:`ServerError` if there is
    no fleet or its roll fails.
    """
    try:
        status, text = ask(folder / CONTROL, "POST", ROLL_PATH, str(bundle.absolute()))
    except OSError as error:
        message = f"no fleet answers in {folder} ({error.strerror or error}); give its --folder"
        raise ServerError(message) from None
    if status == http.client.OK:
        return text
    raise (InputError if status == http.client.BAD_REQUEST else ServerError)(text)
