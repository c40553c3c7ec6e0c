"""What a server keeps outside of its processes, and who owns it: so that a dead server's can be removed.

Each server has a folder of its own, ``trackserve-server-*``, for its owner alone. The file ``owner`` in it
is locked while the process that made it lives, and names what is elsewhere: regions of shared memory by the
prefix of their names, and the empty folders ``python_env_*`` that Triton's python backend makes in ``/tmp``.
The next server that starts removes what nobody owns any more, and only that.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PREFIX = "trackserve-server-"
OWNER = "owner"
SHARED_MEMORY = Path("/dev/shm")
ENVIRONMENTS = ("/tmp", "python_env_*")
LONGEST_FOLDER = 70
"""Bytes of the folder's path: it holds sockets, whose paths Linux bounds by 107."""


class OwnFolder:
    """A new folder for one server: a context manager that removes it and what it names."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > LONGEST_FOLDER - len(PREFIX) - 8:
            parent = ENVIRONMENTS[0]
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._regions: list[str] = []
        self._environments: set[str] = set()
        beside = self.path / ".owner"
        self._lock = os.open(beside, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._write()
        beside.rename(self.path / OWNER)  # nobody sees it unlocked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _remove(self.path, self._regions, sorted(self._environments))
        os.close(self._lock)

    def name_regions(self, prefix: str) -> None:
        """Note that regions of shared memory whose names begin like this belong here."""
        self._regions.append(prefix)
        self._write()

    def name_environments(self, since: float) -> None:
        """Note the python environments that were made since a time (s since 1970)."""
        folder, pattern = ENVIRONMENTS
        for path in Path(folder).glob(pattern):
            with suppress(OSError):
                state = path.stat()
                if state.st_uid == os.getuid() and state.st_ctime >= since:
                    self._environments.add(str(path))
        self._write()

    def close_regions(self) -> None:
        """Keep shared memory to its owner: Triton makes it for everybody, whatever the umask is."""
        for prefix in self._regions:
            for region in SHARED_MEMORY.glob(f"{prefix}*"):
                region.chmod(0o600)

    def remove_regions(self) -> None:
        """Remove the regions that were named so far: nobody uses them any more."""
        for prefix in self._regions:
            _remove_regions(prefix)
        self._regions.clear()

    def _write(self) -> None:
        content = {
            "pid": os.getpid(),
            "since": time.time(),
            "regions": self._regions,
            "environments": sorted(self._environments),
        }
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps(content).encode(), 0)


def remove_leftovers() -> list[Path]:
    """Remove the folders of servers that are dead, and what they name; return these folders."""
    removed = []
    for parent in {tempfile.gettempdir(), ENVIRONMENTS[0]}:
        for folder in Path(parent).glob(f"{PREFIX}*"):
            with suppress(OSError, ValueError):
                if _remove_if_dead(folder):
                    removed.append(folder)
    return removed


def _remove_if_dead(folder: Path) -> bool:
    if folder.stat().st_uid != os.getuid():
        return False
    lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError while its owner lives
        content = json.loads(os.pread(lock, 2**20, 0))
        _remove(folder, content["regions"], content["environments"])
    finally:
        os.close(lock)
    return True


def _remove(folder: Path, regions: list[str], environments: list[str]) -> None:
    for prefix in regions:
        _remove_regions(prefix)
    for environment in environments:
        with suppress(OSError):  # it is empty, or in use and not ours
            Path(environment).rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_regions(prefix: str) -> None:
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
