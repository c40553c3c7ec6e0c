"""The search for settings: its goals, its trials on a real server, its report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tiny_bundle import straight_tracks
from trackserve.errors import InputError
from trackserve.load.tune import Candidate, Goal, Tuning
from trackserve.load.tune_report import front, write_report
from trackserve.serving.settings_file import read_settings

HITS = [straight_tracks(tracks=5 + i, noise=i, seed=i) for i in range(3)]


def point(throughput: float, p99: float, *, answered: int = 100, wrong: int = 0) -> dict:
    return {
        "load": {"concurrency": 1, "rate": 0.0, "seconds": 10.0},
        "counts": {"sent": 100, "answered": answered, "wrong": wrong},
        "throughput": throughput,
        "latency": {"p50": p99 / 2, "p95": p99, "p99": p99},
    }


def test_a_goal_of_latency_takes_the_throughput_of_what_keeps_it():
    goal = Goal(p99=0.1)
    assert goal.score(point(50, 0.1)) == 50
    assert goal.score(point(50, 0.11)) == 0
    assert goal.score(point(50, 0.1, answered=98)) == 0
    assert goal.score(point(50, 0.1, wrong=1)) == 0


def test_a_goal_of_rate_takes_the_latency_of_what_keeps_up():
    goal = Goal(rate=10)
    assert goal.score(point(10, 0.1)) > goal.score(point(10, 0.2)) > 0
    assert goal.score(point(8, 0.1)) == 0
    with pytest.raises(InputError):
        Goal()


def test_the_front_has_no_load_that_another_beats():
    loads = [point(10, 0.1), point(20, 0.3), point(15, 0.4), point(9, 0.1), point(5, 0.05)]
    kept = [p["throughput"] for _, p in front([{"loads": loads}])]
    assert kept == [5, 10, 20]


@pytest.mark.parametrize("goal", [Goal(p99=0.2), Goal(rate=4.0)])
def test_the_search_finds_a_better_candidate_without_trying_all(
    tiny_bundle, tmp_path, monkeypatch, goal
):
    """Threads help most, then HTTP; every load but the best misses nothing but speed."""

    def run(self, candidate, loads):
        speed = 10 + 10 * (candidate.threads == 2) + 5 * (candidate.protocol == "http")
        speed -= 4 * (candidate.engine == "reference")
        return {
            "candidate": vars(candidate),
            "loads": [point(speed, 1 / speed)],
            "memory": 1e6,
        }

    monkeypatch.setattr(Tuning, "_run", run)
    tuning = Tuning(tiny_bundle, HITS, goal, tmp_path, cores=4)
    trials = tuning.search()
    best, _ = tuning.best(trials)
    assert (best["candidate"]["threads"], best["candidate"]["protocol"]) == (2, "http")
    assert len(trials) < 30


@pytest.mark.service
def test_a_search_on_a_server_goes_on_where_it_stopped(tiny_bundle, tmp_path, monkeypatch):
    def tuning(**changed):
        how = {"seconds": 0.3, "trials": 2, "cores": 1, "engines": ("reference",)} | changed
        return Tuning(tiny_bundle, HITS, Goal(p99=5.0), tmp_path, **how)

    trials = tuning().search()
    assert len(trials) == 2
    assert {p["load"]["concurrency"] for p in trials[0]["loads"]} == {1, 2, 4, 8}
    assert trials[0]["loads"][0]["counts"]["answered"] > 0
    assert trials[0]["memory"] > 1e7
    overloads = [trial for trial in trials if "overload" in trial]
    assert overloads
    paths = write_report(tuning(), trials)
    assert {path.name for path in paths} >= {"report.md", "settings.toml", "front.png"}
    settings = read_settings(tmp_path / "settings.toml")
    assert settings.max_queue == overloads[-1]["candidate"]["max_queue"]
    _, best = tuning().best(trials[: -len(overloads)])
    assert settings.max_queue + settings.at_once >= best["load"]["concurrency"]
    assert f"queue {settings.max_queue}" in (tmp_path / "report.md").read_text()

    monkeypatch.setattr(Tuning, "_run", lambda *_: pytest.fail("a trial was run again"))
    assert json.dumps(tuning().search()) == json.dumps(trials)
    with pytest.raises(InputError, match="another seconds"):
        tuning(seconds=1.0).search()


@pytest.mark.service
def test_settings_that_are_too_slow_for_one_event_are_not_loaded(
    tiny_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr("trackserve.load.tune.LEAST_PATIENCE", 1e-3)
    how = {"seconds": 0.3, "trials": 1, "cores": 1, "engines": ("reference",)}
    (trial,) = Tuning(tiny_bundle, HITS, Goal(p99=1e-5), tmp_path, **how).search()
    assert not trial["loads"]
    assert "no answer" in trial["error"]


def test_one_event_more_is_no_better(tiny_bundle, tmp_path):
    tuning = Tuning(tiny_bundle, HITS, Goal(p99=5.0), tmp_path, seconds=5.0)
    trials = [{"loads": [point(rate, 1.0)]} for rate in (0.2, 0.4, 0.6, 0.7)]
    for many, rate in ((1, 0.2), (2, 0.2), (3, 0.6), (4, 0.6)):
        _, best = tuning.best(trials[:many])
        assert best["throughput"] == rate


def test_the_queue_is_the_longest_that_keeps_the_goal_or_the_shortest_tried(tiny_bundle, tmp_path):
    tuning = Tuning(tiny_bundle, HITS, Goal(p99=0.1), tmp_path)
    overloads = [
        {"candidate": {"max_queue": limit}, "loads": [point(10, p99)], "overload": True}
        for limit, p99 in ((8, 0.3), (4, 0.2), (2, 0.09))
    ]
    assert tuning.queue(overloads) == (2, True)
    assert tuning.queue(overloads[:2]) == (4, False)
    assert tuning.queue([]) == (None, False)


def test_the_queue_is_never_too_short_for_the_load_that_was_best(
    tiny_bundle, tmp_path, monkeypatch
):
    def run(_, candidate, loads):
        reached = [point(10, 0.09) | {"load": vars(load)} for load in loads[:3]]
        too_late = [point(10, 0.9) | {"load": vars(load)} for load in loads if load.rate]
        return {"candidate": vars(candidate), "loads": too_late or reached[2:], "memory": 0.0}

    monkeypatch.setattr(Tuning, "_run", run)
    tuning = Tuning(tiny_bundle, HITS, Goal(p99=0.8), tmp_path, trials=40, cores=1)
    trials = tuning.search()
    assert len(trials) <= 40
    assert trials[0]["loads"][0]["load"]["concurrency"] == 4
    limits = [t["candidate"]["max_queue"] for t in trials if "overload" in t]
    assert limits == [7, 3]  # of 10 a second 7 wait 0.8 s beside one; 4 at once are 3 beside one


def test_candidates_have_settings():
    ensemble = Candidate(shape="ensemble", engine="reference", instances=2, threads=3)
    assert ensemble.settings.instances["gnn"] == 2
    assert ensemble.settings.threads["features"] == 3
    one = Candidate(shape="ensemble", engine="reference", instances=2, widened=("gnn",))
    assert dict(one.settings.instances) == {"gnn": 2}
    assert one.name != replace(one, widened=()).name
    assert Candidate.of(json.loads(json.dumps({"candidate": vars(one)}))) == one


def test_an_ensemble_tries_which_stages_need_more_instances(tiny_bundle, tmp_path):
    tuning = Tuning(tiny_bundle, HITS, Goal(p99=0.1), tmp_path)
    ensemble = Candidate(shape="ensemble", engine="reference", instances=2)
    fewer = [each.widened for each in tuning.along("widened stages", ensemble)]
    assert [len(each) for each in fewer] == [3, 3, 3, 3]
    assert not list(tuning.along("widened stages", Candidate(instances=2)))
