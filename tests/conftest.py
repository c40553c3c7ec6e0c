"""Real servers for the tests, each started once, when the first test asks for it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from collector import Receiver
from served import BUDGET_HITS, FREE_PORTS, MAX_HITS
from tiny_bundle import write_tiny_bundle
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.bundle import Bundle
    from trackserve.serving.service import Service

# Hundreds of processes are started. Where none may keep what it has compiled of Python, each compiles all
# that it imports, for seconds.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The gpu engine's kernels run in Triton's interpreter, on the processor.
os.environ.setdefault("TRITON_INTERPRET", "1")
# What starts the tests in the background may have these ignored, and a program inherits that; the
# tests interrupt programs as Ctrl-C and a closed terminal do.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

BUDGET = {"hits": BUDGET_HITS}
MONOLITH = Settings(shape="monolith", max_hits=MAX_HITS, budget=BUDGET)
ENSEMBLE = Settings(shape="ensemble", max_hits=MAX_HITS, budget=BUDGET)
LONGEST = (
    *("test_sanitizers", "test_training", "test_speed", "test_service"),
    *("test_conformance", "test_server", "test_simulate", "test_cpp_client"),
    *("test_fleet", "test_export", "test_budget", "test_bench"),
    *("test_bad_requests", "test_docs", "test_guard", "test_tune"),
    *("test_full_chain", "test_native_fitted", "test_native_networks", "test_served_tracks"),
    *("test_gpu_engine", "test_gpu_compiled", "test_plots", "test_physics"),
    *("test_locked", "test_nothing_is_lost"),
)
"""The files that take longest, half a minute and more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left with one while the others are done."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Let Python's collector pass over what was imported: exporting networks takes a quarter less time then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)


def pytest_unconfigure() -> None:
    """Let it look at everything again, or nanobind reports what is left of its modules at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of three features, as the published Exa.TrkX service takes."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def monolith(tiny_bundle: Bundle) -> Iterator[Service]:
    with serve(tiny_bundle, MONOLITH, **FREE_PORTS) as server:
        yield server


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """A collector of spans."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def ensemble(tiny_bundle: Bundle, receiver: Receiver) -> Iterator[Service]:
    """It records the traces that clients begin, and begins none."""
    traced = replace(ENSEMBLE, trace=receiver.url, trace_share=0.0)
    with serve(tiny_bundle, traced, **FREE_PORTS) as server:
        yield server


@pytest.fixture(params=["monolith", "ensemble"])
def server(request: pytest.FixtureRequest) -> Service:
    """The tiny bundle served in each deployment shape."""
    found: Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: Service) -> str:
    """Where a client reaches the server, by each protocol."""
    return server.grpc_url if request.param == "grpc" else server.http_url
