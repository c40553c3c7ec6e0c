"""How many servers hold a rate of events below a latency, by simulating their queues.

Requests arrive at random (Poisson). A proxy sends each to the less busy of two servers drawn at random, as
Envoy's least-request does. A server works on an event a core, first come first served, lets a number of
requests wait, and refuses the rest. Service times are drawn from measured ones.

More than ``CELL`` servers are simulated as ``CELL`` with their share of the rate: with two choices the
queues of ``CELL`` servers are already those of any larger number (Mitzenmacher, IEEE TPDS 12 (2001)
1094).

Times in seconds, rates in events a second.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import InputError

if TYPE_CHECKING:
    from trackserve.event import Float64

CELL = 32
ARRIVALS = 40_000
"""Requests of a simulation; its p99 rests on 400 of them."""
_SEED = 1


@dataclass(frozen=True, eq=False)
class Demand:
    """``rate`` events a second, to be answered within ``p99`` but for one in a hundred.

    ``service`` ``[S]`` are measured times of one core for an event, with what the server adds.
    """

    rate: float
    p99: float
    service: Float64

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.p99 > 0 and len(self.service) and self.service.min() > 0):
            message = (
                f"rate {self.rate}, p99 {self.p99}: expected positive numbers, and service times"
            )
            raise InputError(message)
        if np.quantile(self.service, 0.99) >= self.p99:
            message = (
                f"an event takes one core {np.quantile(self.service, 0.99):.3g} s (p99), so none can be "
                f"answered within {self.p99:g} s; more threads an event, or smaller events, can"
            )
            raise InputError(message)


@dataclass(frozen=True)
class Fleet:
    """Servers of ``cores`` instances, each of which lets ``queue`` requests wait."""

    servers: int
    cores: int
    queue: int


@dataclass(frozen=True)
class Interruption:
    """A server that takes no requests from ``start`` to ``end``; if ``killed``, its requests begin again elsewhere."""

    start: float
    end: float
    killed: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the requests, by arrival: ``arrival`` and ``latency`` ``[R]``, infinite if refused."""

    arrival: Float64
    latency: Float64
    busy: float

    @property
    def refused(self) -> float:
        """The share that was refused."""
        return float(np.isinf(self.latency).mean()) if len(self.latency) else 0.0

    def quantile(self, share: float) -> float:
        """Return a quantile of the latency of answered requests."""
        answered = self.latency[np.isfinite(self.latency)]
        return float(np.quantile(answered, share)) if len(answered) else math.inf

    def between(self, start: float, end: float) -> Outcome:
        """Return the requests that arrived within this time."""
        within = (self.arrival >= start) & (self.arrival < end)
        return replace(self, arrival=self.arrival[within], latency=self.latency[within])


@dataclass
class _Server:
    free: list[float]
    """When each core is free, a heap."""
    pending: list[tuple[float, int]] = field(default_factory=list)
    """End and number of each request in work or waiting, a heap."""
    up: bool = True


def simulate(
    fleet: Fleet, arrival: Float64, service: Float64, interruption: Interruption | None = None
) -> Outcome:
    """Return what becomes of requests that arrive at these times ``[R]`` and take so long ``[R]``.

    ``interruption`` is the first server's.
    """
    rng = np.random.default_rng(_SEED)
    draws = rng.random((2, 2 * len(arrival) + 1))
    servers = [_Server([0.0] * fleet.cores) for _ in range(fleet.servers)]
    done = np.full(len(arrival), np.inf)
    todo = [(float(t), n) for n, t in enumerate(arrival)]
    heapq.heapify(todo)
    changes = [] if interruption is None else [interruption.start, interruption.end]
    drawn = 0
    while todo:
        now, number = heapq.heappop(todo)
        while changes and changes[0] <= now:
            at = changes.pop(0)
            servers[0].up = not changes
            if interruption is not None and interruption.killed and changes:
                _restart_elsewhere(servers[0], at, todo, done)
                heapq.heappush(todo, (now, number))
                now, number = heapq.heappop(todo)
        first = 0 if servers[0].up else 1
        if first == fleet.servers:
            continue
        span = fleet.servers - first
        pair = [servers[first + int(span * draws[row, drawn % draws.shape[1]])] for row in (0, 1)]
        drawn += 1
        for server in pair:
            while server.pending and server.pending[0][0] <= now:
                heapq.heappop(server.pending)
        chosen = min(pair, key=lambda server: len(server.pending))
        if len(chosen.pending) < fleet.cores + fleet.queue:
            end = max(now, chosen.free[0]) + float(service[number])
            heapq.heapreplace(chosen.free, end)
            heapq.heappush(chosen.pending, (end, number))
            done[number] = end
    seconds = float(arrival[-1]) if len(arrival) else 1.0
    busy = float(service[np.isfinite(done)].sum()) / (fleet.servers * fleet.cores * seconds)
    return Outcome(arrival, done - arrival, busy)


def _restart_elsewhere(
    server: _Server, at: float, todo: list[tuple[float, int]], done: Float64
) -> None:
    """Send the requests of a server that died to others, at the moment at which it died."""
    for end, number in server.pending:
        if end > at:
            done[number] = np.inf
            heapq.heappush(todo, (at, number))
    server.pending.clear()
    server.free[:] = [at] * len(server.free)


@dataclass(frozen=True)
class Row:
    """A situation and what requests meet in it."""

    situation: str
    p50: float
    p95: float
    p99: float
    refused: float
    recovery: float | None = None
    """Seconds after a burst until latencies are as they were before."""


@dataclass(frozen=True)
class Plan:
    """Servers that meet a demand, and what happens when they are one fewer, or twice as much comes."""

    fleet: Fleet
    rate: float
    p99: float
    service: float
    busy: float
    rows: tuple[Row, ...]

    @property
    def cores(self) -> int:
        """Cores of all servers."""
        return self.fleet.servers * self.fleet.cores


def make_plan(
    demand: Demand,
    cores: int,
    *,
    headroom: float = 0.2,
    spare: int = 1,
    burst: float = 10.0,
    roll: float = 30.0,
) -> Plan:
    """Return the fewest servers of ``cores`` cores that meet the demand, and ``spare`` more.

    At least the share ``headroom`` of the cores stays idle without the spare servers. ``burst`` is how long twice the rate comes, ``roll`` how long a server is out for a roll.
    """
    mean = float(demand.service.mean())
    # A request that waits longer than this could not be answered in time; it is refused at once.
    queue = max(1, round(cores * (demand.p99 - float(np.quantile(demand.service, 0.99))) / mean))
    least = math.ceil(demand.rate * mean / (cores * (1 - headroom)))
    fewest = _fewest(demand, cores, queue, least)
    fleet = Fleet(fewest + spare, cores, queue)
    steady = _steady(demand, fleet)
    among = min(fleet.servers, CELL)
    rows = (
        _row("as planned", steady),
        _row(f"one server of {among} killed", _interrupted(demand, fleet, roll, killed=True)),
        _row(f"one of {among} out for a roll", _interrupted(demand, fleet, roll, killed=False)),
        _burst(demand, fleet, burst),
    )
    return Plan(fleet, demand.rate, demand.p99, mean, steady.busy, rows)


def _fewest(demand: Demand, cores: int, queue: int, least: int) -> int:
    """Return the fewest servers that meet the demand; more never do worse."""

    def meets(servers: int) -> bool:
        outcome = _steady(demand, Fleet(servers, cores, queue))
        return outcome.refused == 0 and outcome.quantile(0.99) <= demand.p99

    enough = least
    while not meets(enough):
        enough = math.ceil(enough * 1.25) + (enough < 4)
    while enough > least:
        middle = (least + enough) // 2
        if meets(middle):
            enough = middle
        else:
            least = middle + 1
    return enough


def _cell(demand: Demand, fleet: Fleet) -> tuple[Fleet, float]:
    """Return the part of the fleet that is simulated, and its share of the rate."""
    servers = min(fleet.servers, CELL)
    return replace(fleet, servers=servers), demand.rate * servers / fleet.servers


def _arrivals(rate: float, count: int) -> Float64:
    times: Float64 = np.cumsum(np.random.default_rng(_SEED).exponential(1 / rate, count))
    return times


def _drawn(service: Float64, count: int) -> Float64:
    return np.random.default_rng(_SEED + 1).choice(service, count)


def _steady(demand: Demand, fleet: Fleet) -> Outcome:
    part, rate = _cell(demand, fleet)
    # The first fifth fills the queues and isn't counted.
    warm = ARRIVALS // 5
    arrival = _arrivals(rate, ARRIVALS)
    outcome = simulate(part, arrival, _drawn(demand.service, ARRIVALS))
    return outcome.between(arrival[warm], math.inf)


def _interrupted(demand: Demand, fleet: Fleet, seconds: float, *, killed: bool) -> Outcome:
    part, rate = _cell(demand, fleet)
    start = 5 * demand.p99
    seconds = min(seconds, max(ARRIVALS / rate, 5 * demand.p99))  # by then it is steady again
    arrival = _arrivals(rate, max(1000, math.ceil(rate * (start + seconds))))
    interruption = Interruption(start, start + seconds, killed)
    outcome = simulate(part, arrival, _drawn(demand.service, len(arrival)), interruption)
    # Requests that were on the server when it died arrived a little earlier.
    return outcome.between(start - demand.p99, start + seconds)


def _burst(demand: Demand, fleet: Fleet, seconds: float) -> Row:
    part, rate = _cell(demand, fleet)
    start = 5 * demand.p99
    end = start + seconds
    after = 20 * demand.p99
    before = _arrivals(rate, math.ceil(rate * (end + after)))
    more = start + _arrivals(rate, math.ceil(rate * seconds))
    arrival = np.sort(np.concatenate([before, more[more < end]]))
    outcome = simulate(part, arrival, _drawn(demand.service, len(arrival)))
    step = max(demand.p99 / 4, 100 / rate)
    recovered = next(
        (
            at - end
            for at in np.arange(end, end + after, step)
            if (window := outcome.between(at, at + step)).refused == 0
            and window.quantile(0.99) <= demand.p99
        ),
        math.inf,
    )
    return replace(
        _row(f"twice the rate for {seconds:g} s", outcome.between(start, end)), recovery=recovered
    )


def _row(situation: str, outcome: Outcome) -> Row:
    p50, p95, p99 = (outcome.quantile(share) for share in (0.5, 0.95, 0.99))
    return Row(situation, p50, p95, p99, outcome.refused)


def table(plan: Plan) -> str:
    """Return the plan as text."""
    fleet = plan.fleet
    lines = [
        f"{fleet.servers:,} servers of {fleet.cores} cores: {plan.cores:,} cores, {100 * plan.busy:.0f} % busy",
        f"for {plan.rate:,g} events/s of {1000 * plan.service:.4g} ms each, p99 below {plan.p99:g} s",
        f"serve each with: --instances {fleet.cores} --threads 1 --max-queue {fleet.queue}",
        "",
        f"{'':30}{'p50':>9}{'p95':>9}{'p99':>9}{'refused':>10}",
    ]
    for row in plan.rows:
        times = "".join(f"{value:8.3g}s" for value in (row.p50, row.p95, row.p99))
        lines.append(f"{row.situation:30}{times}{100 * row.refused:8.2g} %")
        if row.recovery is not None:
            again = (
                f"{row.recovery:.0f} s"
                if math.isfinite(row.recovery)
                else f"more than {20 * plan.p99:.0f} s"
            )
            lines.append(f"{'':4}after it, p99 is met again within {again}")
    return "\n".join(lines)
