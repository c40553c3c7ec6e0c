"""A file with a server's address, in a shared folder, for as long as it takes requests."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from trackserve.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERY_ADDRESS = ("0.0.0.0", "::")
SEEN_SECONDS = 3.0
"""After which a front that reads the folder every second sends nothing to a server that has left it."""


@contextlib.contextmanager
def registered(folder: Path | None, address: str, port: int) -> Iterator[None]:
    """Have ``address:port`` in a file of ``folder`` while the context lasts, and stay until fronts have noticed its end.

    A service that listens on every address is known by this machine's name. In a Slurm job the file's name begins with the job's number, so
    that the job can take all its servers out at once. Without a folder nothing is done.
    """
    if folder is None:
        yield
        return
    host = socket.gethostname() if address in EVERY_ADDRESS else address.strip("[]")
    folder.mkdir(parents=True, exist_ok=True)
    names = (os.environ.get("SLURM_JOB_ID"), host, str(port))
    path = folder / "-".join(name for name in names if name)
    write_text(path, f"[{host}]:{port}\n" if ":" in host else f"{host}:{port}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        time.sleep(SEEN_SECONDS)
