"""Clients in step and out of step are all answered, at rates that their work allows."""

from __future__ import annotations

import numpy as np
import pytest

from studies.client.encodings import positions
from studies.client.feeding import ask, cores_kept_busy, start
from tiny_bundle import straight_tracks

WORK = 0.2


@pytest.mark.service
def test_clients_are_asked_for_as_many_events_as_they_are_given(monolith, tmp_path):
    event = tmp_path / "event.npy"
    np.save(event, positions(straight_tracks(tracks=5)))
    clients = [start(monolith.grpc_url, event, WORK) for _ in range(2)]
    try:
        for in_step in (True, False):
            found = ask(clients, 2, WORK, in_step=in_step)
            assert found["seconds"]["count"] == 4
            assert found["seconds"]["median"] > 0
            assert 0 < found["rate"] < len(clients) / WORK
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def test_a_server_keeps_those_busy_whose_rest_takes_its_time():
    # 2 events a second; half of 8 s is tracking: a core asks every 4 s, so 8 cores ask as often.
    assert cores_kept_busy(rate=2.0, tracking=4.0, share=0.5) == pytest.approx(8.0)
    assert cores_kept_busy(rate=2.0, tracking=4.0, share=1.0) == 0.0
