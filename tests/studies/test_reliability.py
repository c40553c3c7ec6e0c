"""A short campaign of hostile requests, files and bundles; a long one is ``make fuzz``."""

from __future__ import annotations

import json

import pytest

from studies.reliability.files import file_campaign
from studies.reliability.fuzz import attack
from studies.reliability.watch import slope
from studies.reliability.wire import Answer, fault
from tiny_bundle import straight_tracks


@pytest.mark.service
def test_hostile_requests_change_nothing(monolith, ensemble, tmp_path):
    services = {"monolith": monolith, "ensemble": ensemble}
    hits = straight_tracks(tracks=30)
    found = attack(services, hits, 3, minutes=0.03, seed=1, kept=tmp_path, most=104)
    assert found["faults"] == []
    assert found["hangs"] == found["wrong"] == 0
    assert found["requests"] >= 4 * 57  # the corpus, by each way
    assert found["good"] >= 8
    assert all(found["same_processes"].values())
    assert json.dumps(found, allow_nan=False)


def test_hostile_files_and_bundles_are_read_or_refused(tiny_bundle, tmp_path):
    found = file_campaign(tiny_bundle, minutes=0.04, seed=1, kept=tmp_path)
    for kind in ("files", "bundles"):
        assert found[kind]["faults"] == []
        assert found[kind]["refused"] > 0
        assert found[kind]["read"] > 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0),
        Answer(500, {}, b'{"error":"x"}'),
        Answer(200, {"grpc-status": "13", "grpc-message": "x"}),
        Answer(400, {}, b'{"error":"no /dev/shm"}'),
        Answer(503, {}, b'{"error":"the server broke off this request"}'),
    ],
)
def test_what_no_client_may_get_is_a_fault(answer):
    from studies.reliability.corpus import Request

    assert fault(Request("/v2"), answer)
    assert not fault(Request("/v2"), Answer(400, {}, b'{"error":"x is nan"}'))


def test_a_slope_is_that_of_the_line():
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2)
