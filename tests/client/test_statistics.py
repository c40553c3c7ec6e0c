"""Where the time of an event goes, from a server's counts: worked out by hand."""

from __future__ import annotations

import pytest

from trackserve.client.statistics import Statistics
from trackserve.contract import metrics
from trackserve.contract.tensors import STAGES

LATER = [stage.name for stage in STAGES[1:]]


def test_a_stage_that_features_skip_counts_for_the_events_that_had_it() -> None:
    """One event came as hits, 99 as features: each stage took a second of those that it worked on."""
    done = {"features": 1, **dict.fromkeys(LATER, 100)}
    counters = {(metrics.EVENTS.name, stage): float(n) for stage, n in done.items()}
    counters |= {(metrics.SECONDS.name, stage): float(n) for stage, n in done.items()}
    counters |= {(metrics.QUEUE_SECONDS.name, "track_finding"): 2.0}
    counters |= {(metrics.QUEUE_SECONDS.name, "exatrkx"): 8.0}
    count = {("track_finding", "success"): 1, ("exatrkx", "success"): 99}
    spent = Statistics(count, {}, counters).spent()
    assert spent["compute features"] == pytest.approx(0.01)
    assert spent["compute gnn"] == pytest.approx(1.0)
    assert spent["turn"] == pytest.approx(0.1)
    assert spent["server"] == pytest.approx(0.01 + len(LATER) + 0.1)


def test_an_ensemble_is_added_up_over_both_models() -> None:
    count = {("track_finding", "success"): 1, ("exatrkx", "success"): 3}
    seconds = {}
    for stage, n in {"features": 1, **dict.fromkeys(LATER, 4)}.items():
        for part in ("success", "compute_infer", "queue"):
            count[stage, part], seconds[stage, part] = n, float(n)
    count |= {("hits_to_tracks", "success"): 1, ("features_to_tracks", "success"): 3}
    seconds |= {("hits_to_tracks", "success"): 20.0, ("features_to_tracks", "success"): 48.0}
    spent = Statistics(count, seconds).spent()
    assert spent["server"] == pytest.approx(17.0)
    assert spent["compute features"] == pytest.approx(0.25)
    assert spent["queue"] == pytest.approx(0.25 + len(LATER))


def test_a_bundle_s_counts_are_those_of_its_own_models() -> None:
    count = {("track_finding", "success"): 5, ("track_finding.b", "success"): 7}
    counters = {(metrics.HITS.name, "a"): 10.0, (metrics.HITS.name, "b"): 20.0}
    found = Statistics(count, {}, counters).of("b", "b")
    assert found.count == {("track_finding", "success"): 7}
    assert found.counters == {(metrics.HITS.name,): 20.0}
