"""Events share a device's memory: one that finds too little waits for the others, and is refused alone."""

from __future__ import annotations

import threading

import pytest
import torch

from trackserve.engines.gpu.engine import GpuPipeline
from trackserve.engines.gpu.inflight import InFlight
from trackserve.errors import InputError


def test_one_that_runs_alone_waits_for_those_in_flight_and_holds_back_others():
    flight, order = InFlight(), []
    started, release = threading.Event(), threading.Event()

    def beside(name: str) -> None:
        with flight.beside_others():
            order.append(name)
            started.set()
            release.wait(10)
            order.append(f"{name} ends")

    def alone() -> None:
        with flight.alone():
            order.append("alone")

    first = threading.Thread(target=beside, args=("first",))
    first.start()
    started.wait(10)
    waiting = threading.Thread(target=alone)
    waiting.start()
    while not flight.waiting:
        pass
    later = threading.Thread(target=beside, args=("later",))
    later.start()
    release.set()
    for thread in (first, waiting, later):
        thread.join(10)
    assert order == ["first", "first ends", "alone", "later", "later ends"]


@pytest.mark.parametrize("failures", [1, 2])
def test_an_event_without_memory_is_run_alone_then_refused(shipped, failures, monkeypatch):
    bundle, features, _ = shipped
    pipeline = GpuPipeline(bundle, device="cpu")
    run, left = pipeline._stages.run, [failures]

    def short_of_memory(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError
        return run(*args, **kwargs)

    monkeypatch.setattr(pipeline._stages, "run", short_of_memory)
    few = features[:20]
    if failures == 2:
        with pytest.raises(
            InputError, match="too little memory for an event of 20 hits, even alone"
        ):
            pipeline.find_tracks_from_features(few)
    assert len(pipeline.find_tracks_from_features(few).labels) == 20
