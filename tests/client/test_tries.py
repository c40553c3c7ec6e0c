"""When to ask again, and whom: on a clock that the tests move."""

from __future__ import annotations

import pytest

from trackserve.client import tries as module
from trackserve.client.tries import FIRST_REST, LONGEST_REST, Patience, Servers, Tries
from trackserve.errors import (
    InputError,
    NobodyListensError,
    NotTrustedError,
    RefusedError,
    UnreachableError,
)

GONE = UnreachableError("gone")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module.random, "uniform", lambda _, high: high)
    return clock


def fail(servers: Servers, number: int, error=GONE) -> None:
    servers.asked(number)
    servers.failed(number, error)


def test_a_client_stays_with_its_server_and_spreads_requests_in_flight(clock):
    servers = Servers(3)
    first = servers.choose()
    servers.asked(first)
    servers.answered(first)
    assert servers.choose() == first
    chosen = []
    for _ in range(6):
        chosen.append(servers.choose())
        servers.asked(chosen[-1])
    assert sorted(chosen) == [0, 0, 1, 1, 2, 2]
    servers.dropped(chosen[2])
    assert servers.choose() == chosen[2]


def test_clients_begin_with_different_servers():
    assert {Servers(3).choose() for _ in range(200)} == {0, 1, 2}


def test_a_server_that_failed_is_left_alone_until_it_has_rested(clock):
    servers = Servers(2)
    first = servers.choose()
    fail(servers, first)
    assert servers.choose() == 1 - first
    assert servers.rest() == 0
    clock.now += FIRST_REST / 2
    fail(servers, 1 - first)
    assert servers.rest() == pytest.approx(FIRST_REST / 2)
    assert servers.choose() == first  # nobody is awake; it is the first to have rested
    clock.now += FIRST_REST
    assert servers.rest() == 0


def test_rests_double_up_to_the_longest_and_an_answer_ends_them(clock):
    servers = Servers(1)
    rests = []
    for _ in range(8):
        fail(servers, 0)
        rests.append(servers.rest())
        clock.now += rests[-1]
    assert rests == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_REST, LONGEST_REST])
    fail(servers, 0)
    servers.asked(0)
    servers.answered(0)
    assert servers.rest() == 0
    fail(servers, 0)
    assert servers.rest() == pytest.approx(FIRST_REST)


def test_many_requests_that_fail_together_are_one_failure(clock):
    servers = Servers(1)
    for _ in range(20):
        servers.asked(0)
    for _ in range(20):
        servers.failed(0, GONE)
    assert servers.rest() == pytest.approx(FIRST_REST)


def test_a_refusal_says_how_long_to_rest(clock, monkeypatch):
    servers = Servers(1)
    error = RefusedError("full")
    error.retry_after = 1.5
    fail(servers, 0, error)
    assert servers.rest() == pytest.approx(1.25 * 1.5)
    clock.now += 2
    monkeypatch.setattr(module.random, "uniform", lambda low, _: low)
    fail(servers, 0, error)
    assert servers.rest() == pytest.approx(1.5)  # never sooner
    clock.now += 2
    error.retry_after = 3600
    fail(servers, 0, error)
    assert servers.rest() == pytest.approx(LONGEST_REST)


def test_tries_are_bounded_by_count(clock):
    servers = Servers(2)
    tries = Tries(Patience(timeout=1000, tries=3), servers)
    for count in range(1, 7):
        number, timeout = servers.choose(), tries.timeout()
        assert timeout == pytest.approx(1000 - (clock.now - 1000))
        fail(servers, number)
        if count < 6:
            clock.now += tries.wait(GONE, fallback=False)
    with pytest.raises(UnreachableError, match=r"^gone; gave up after 6 tries in 0\.[34] s$"):
        tries.wait(GONE, fallback=False)


def test_tries_are_bounded_by_the_deadline(clock):
    servers = Servers(1)
    tries = Tries(Patience(timeout=0.25, tries=100, try_timeout=0.2), servers)
    assert tries.timeout() == pytest.approx(0.2)
    fail(servers, 0)
    clock.now += tries.wait(GONE, fallback=False)
    assert tries.timeout() == pytest.approx(0.15)
    fail(servers, 0)
    error = RefusedError("full")
    error.retry_after = 7.0
    with pytest.raises(RefusedError, match="gave up after 2 tries") as raised:
        tries.wait(error, fallback=False)
    assert raised.value.retry_after == 7.0


def test_with_a_fallback_nobody_waits_but_every_server_is_asked(clock):
    servers = Servers(2)
    tries = Tries(Patience(timeout=10, tries=10), servers)
    first = servers.choose()
    tries.timeout()
    fail(servers, first)
    assert tries.wait(GONE, fallback=True) == 0
    tries.timeout()
    fail(servers, servers.choose())
    with pytest.raises(UnreachableError):
        tries.wait(GONE, fallback=True)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"tries": 0}, {"try_timeout": -1.0}])
def test_patience_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="expected more than 0"):
        Patience(**{"timeout": 1.0, "tries": 1, **wrong})


def test_what_one_address_of_a_name_said_is_not_lost_to_one_where_nobody_listens(clock):
    servers = Servers(1)
    tries = Tries(Patience(60.0, 20), servers)
    tries.timeout()
    fail(servers, 0, NotTrustedError("not trusted"))
    tries.wait(NotTrustedError("not trusted"), fallback=False)
    clock.now += 3
    fail(servers, 0, NobodyListensError("nobody"))
    with pytest.raises(NotTrustedError, match="not trusted"):
        tries.wait(NobodyListensError("nobody"), fallback=False)
