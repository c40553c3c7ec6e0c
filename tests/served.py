"""What tests that start a server give it and ask of it."""

from __future__ import annotations

import re
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trackserve.client import Client
from trackserve.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.event import Hits, Int64
    from trackserve.serving.service import Service

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
MAX_HITS = 2000
BUDGET_HITS = 1990
"""Most hits by the budget of an event, which is looked at after the limit of a request."""


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


def counted(server: Service) -> dict[str, float]:
    """The pipeline's own metrics, as ``name{labels}``."""
    with urllib.request.urlopen(server.metrics_url) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if re.match(r"trackserve_(?!guard_)", line))
    return {name: float(value) for name, value in found}


def wait_for(server: Service, name: str, value: float) -> dict[str, float]:
    """The metrics once one of them has reached a value: they are reported twice a second."""
    for _ in range(600):
        if (now := counted(server)).get(name, 0.0) >= value:
            return now
        threading.Event().wait(0.05)
    raise AssertionError(now)
