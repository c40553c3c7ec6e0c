"""What tests that start a server give it and ask of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trackserve.client import Client
from trackserve.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.event import Hits, Int64

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
MAX_HITS = 2000


def refusals(urls: Sequence[str], hits: Hits, labels: Int64) -> list[RefusedError]:
    """Ask every URL at the same time, once; check what is answered and return what is refused."""
    together = threading.Barrier(len(urls))

    def ask(url: str) -> RefusedError | None:
        with Client(url, tries=1) as client:
            together.wait()
            try:
                np.testing.assert_array_equal(client.find_tracks(hits).labels, labels)
            except RefusedError as error:
                return error
            return None

    with ThreadPoolExecutor(len(urls)) as pool:
        return [refused for refused in pool.map(ask, urls) if refused is not None]
