"""The plan's queues against what theory says of them, and what an interruption does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trackserve.cli import main
from trackserve.errors import InputError
from trackserve.load.plan import Demand, Fleet, Interruption, make_plan, simulate

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(5)


def poisson(rate: float, count: int) -> np.ndarray:
    return np.cumsum(RNG.exponential(1 / rate, count))


@pytest.mark.parametrize(("cores", "waiting"), [(1, 0.7 / 0.3), (2, 0.7**2 / (1 - 0.7**2))])
def test_one_server_waits_as_queueing_theory_says(cores: int, waiting: float) -> None:
    # M/M/1 waits rho / (1 - rho), M/M/2 rho^2 / (1 - rho^2) service times on average (Erlang).
    arrival = poisson(0.7 * cores, 60_000)
    outcome = simulate(Fleet(1, cores, 10_000), arrival, RNG.exponential(1.0, len(arrival)))
    assert outcome.latency.mean() - 1 == pytest.approx(waiting, rel=0.1)
    assert outcome.busy == pytest.approx(0.7, rel=0.03)
    assert outcome.refused == 0


def test_what_a_full_server_cannot_take_is_refused() -> None:
    arrival = poisson(2.0, 20_000)
    outcome = simulate(Fleet(1, 1, 3), arrival, np.ones(len(arrival)))
    assert outcome.refused == pytest.approx(0.5, abs=0.02)
    assert outcome.quantile(1.0) <= 4


def test_requests_of_a_killed_server_begin_again_elsewhere() -> None:
    # Twenty requests on two servers with a core for each; the first server stops after 4 s.
    arrival, service, fleet = np.zeros(20), np.full(20, 10.0), Fleet(2, 20, 0)
    later = np.append(arrival, 5.0), np.append(service, 10.0)
    killed = simulate(fleet, *later, Interruption(4.0, 100.0, killed=True))
    drained = simulate(fleet, *later, Interruption(4.0, 100.0, killed=False))
    # What was on the other server is done after 10 s, what began again there after 14.
    assert set(killed.latency[:-1]) == {10.0, 14.0}
    assert set(drained.latency[:-1]) == {10.0}
    # Twenty requests are all that the other server has room for; after a drain there is some.
    assert np.isinf(killed.latency[-1])
    assert drained.latency[-1] == 10.0


def test_plan_has_the_fewest_servers_that_are_enough() -> None:
    demand = Demand(rate=100.0, p99=1.5, service=np.array([0.3, 0.35, 0.4]))
    plan = make_plan(demand, cores=4, headroom=0.1, spare=0)
    assert plan.fleet.servers == 10  # 35 cores' work at 90 % busy
    assert plan.busy == pytest.approx(0.875, abs=0.03)
    steady, *_, burst = plan.rows
    assert steady.p99 <= 1.5
    assert steady.refused == 0
    assert burst.refused > 0.1
    assert make_plan(demand, cores=4, headroom=0.1, spare=2).fleet.servers == 12


def test_large_fleets_need_servers_in_proportion_to_the_rate() -> None:
    service = np.full(10, 0.4)
    small, large = (
        make_plan(Demand(rate, 1.0, service), 4, spare=0, burst=1.0, roll=1.0)
        for rate in (500.0, 5_000.0)
    )
    assert large.fleet.servers == pytest.approx(10 * small.fleet.servers, rel=0.03)


def test_impossible_demands_are_refused() -> None:
    with pytest.raises(InputError, match=r"none can be answered within 0.2 s"):
        Demand(10.0, 0.2, np.array([0.3]))
    with pytest.raises(InputError, match="expected positive numbers"):
        Demand(0.0, 1.0, np.array([0.3]))


def test_command_prints_and_writes_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    given = ["plan", "--rate", "50", "--p99", "2", "--cores", "2", "--json", str(out)]
    assert main([*given, "--seconds", "0.3"]) == 0
    plan = json.loads(out.read_text())
    assert f"{plan['fleet']['servers']} servers of 2 cores" in capsys.readouterr().out
    assert plan["cores"] == 2 * plan["fleet"]["servers"]
    assert main(given) == 2
    assert "give events" in capsys.readouterr().err
    assert main([*given, "--seconds", "0.3", "--headroom", "1"]) == 2
