"""A server whose shared memory is full refuses what has no room in it, and lives on."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from trackserve.client import Client
from trackserve.errors import RefusedError

MEGABYTES = 3
HITS = 400_000
"""12 bytes each: more than the shared memory has."""
OWN_SHARED_MEMORY = ("unshare", "--mount", "sh", "-c")
MOUNT = f"mount -t tmpfs -o size={MEGABYTES}m tmpfs /dev/shm"


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*OWN_SHARED_MEMORY, MOUNT], capture_output=True, check=False).returncode
        == 0
    )


@pytest.fixture(scope="module")
def urls(tiny_bundle):
    """Where a server with a small shared memory of its own listens."""
    if not may_mount():
        pytest.skip("a small /dev/shm needs root")
    serve = (
        f"{sys.executable} -m trackserve.cli serve --bundle {tiny_bundle.path} --max-hits {HITS}"
    )
    ports = "--http-port 0 --grpc-port 0 --metrics-port 0"
    command = [*OWN_SHARED_MEMORY, f"{MOUNT} && exec {serve} --engine reference {ports}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        found = [
            line.split()[1]
            for line in iter(program.stdout.readline, "ready; stop with Ctrl-C\n")
            if "://" in line
        ]
        yield dict(zip(("grpc", "http"), found, strict=False))
        program.terminate()


@pytest.mark.service
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_event_without_room_in_shared_memory_is_refused(urls, protocol):
    small, large = np.ones((5, 3), np.float32), np.ones((HITS, 3), np.float32)
    with Client(urls[protocol], tries=1) as client:
        assert len(client.find_tracks(small).labels) == 5
        with pytest.raises(
            RefusedError, match="no shared memory left for this event; retry after 1 s"
        ):
            client.find_tracks(large)
        assert len(client.find_tracks(small).labels) == 5
