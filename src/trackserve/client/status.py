"""What a server, or each server of a fleet, runs, how busy it is and where the time of an event goes."""

from __future__ import annotations

import contextlib
import http.client
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackserve.client.connection import connect, split_url, strings
from trackserve.client.credentials import SECURE
from trackserve.client.statistics import read_page, read_statistics, usual_metrics
from trackserve.contract import metrics
from trackserve.contract.description import PIPELINE, Description
from trackserve.contract.tensors import SERVED, STAGES, TRACK_FINDING
from trackserve.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.client.connection import Connection
    from trackserve.client.statistics import Statistics

TIMEOUT = 10.0
WATCH_SECONDS = 2.0
FLEET_PATH = "/fleet/status"
"""Where a fleet reports its servers in words, on the port of its requests."""

PARTS = ("turn", "queue", "copy", *(f"compute {stage.name}" for stage in STAGES))
"""Where time goes, on an event's way."""


@dataclass(frozen=True)
class Status:
    """A bundle of a server while that was watched for ``seconds``.

    ``instances``, ``threads`` (of one instance) and ``busy`` (share of the time that the instances
    worked) go by model. ``in_flight`` are requests that wait or are worked on, ``outcomes`` counts
    those since the start by what became of them: None without metrics, and ``busy`` of a monolith is
    empty. ``memory`` are bytes by device and kind where an engine's device has memory of its own. ``spent`` is where the mean time (s) of an event went: of those done meanwhile if ``recent``,
    else since the start.
    """

    description: Description
    shape: str
    engine: str
    device: str
    precision: str
    instances: Mapping[str, int]
    threads: Mapping[str, int]
    seconds: float
    events_per_s: float
    busy: Mapping[str, float]
    in_flight: int | None
    outcomes: Mapping[str, int] | None
    spent: Mapping[str, float]
    recent: bool
    memory: Mapping[str, int]

    def __str__(self) -> str:
        description, busiest = (
            self.description,
            max(self.busy, key=self.busy.__getitem__, default=""),
        )
        busy = f"{self.busy[busiest]:.0%} of {busiest}, " if self.busy else ""
        lines = {
            "bundle": f"{description.bundle} ({description.digest}), detector {description.detector}",
            "runs": f"{self.shape}, engine {self.engine} on {self.device}, precision {self.precision}",
            **self._memory(),
            "models": ", ".join(
                f"{name} {count} x {self.threads[name]}" for name, count in self.instances.items()
            )
            + " (instances x threads)",
            "takes": f"{description.max_hits:,} hits an event at most, {description.max_queue} waiting requests",
            "busy": f"{busy}{self.events_per_s:.1f} events/s in the last {self.seconds:.1f} s",
            **self._requests(),
            "time": self._times(),
        }
        return "\n".join(f"  {name:8}  {text}" for name, text in lines.items())

    def _memory(self) -> dict[str, str]:
        listed = [f"{name} {size / 2**30:.1f} GiB" for name, size in self.memory.items()]
        return {"memory": ", ".join(listed)} if listed else {}

    def _requests(self) -> dict[str, str]:
        if self.outcomes is None:
            return {"requests": "counted in the metrics; give their address with --metrics"}
        counts = {name: f"{self.outcomes.get(name, 0):,} {name}" for name in metrics.OUTCOMES}
        return {
            "requests": f"{self.in_flight} in flight; since the start {counts['answered']}, "
            f"{counts['unusable']}, {counts['over_budget']}, {counts['failed']}",
            "refused": ", ".join(counts[name] for name in metrics.REFUSALS),
        }

    def _times(self) -> str:
        if not self.spent:
            return "no event yet"
        whole = sum(self.spent.values())
        rows = [
            f"{name:20} {1000 * seconds:9.2f} ms {seconds / whole:5.0%}"
            for name, seconds in self.spent.items()
        ]
        when = "in the last seconds" if self.recent else "since the start"
        return "\n            ".join([f"of an event, mean {when}", *rows])


def status_report(url: str, metrics_url: str | None = None) -> str:
    """Return in words what is at an address: a server, or each server of a fleet."""
    return _fleet(url) or "\n".join((url, *map(str, read_status(url, metrics_url))))


def _fleet(url: str) -> str:
    """Return the report of a fleet, nothing if there is none at the address."""
    scheme, address = split_url(url)
    secure = "s" if scheme in SECURE else ""
    try:
        return read_page(f"http{secure}://{address}{FLEET_PATH}")
    except (OSError, http.client.HTTPException):  # nothing there, or gRPC alone
        return ""


def read_status(
    url: str, metrics_url: str | None = None, *, seconds: float = WATCH_SECONDS
) -> tuple[Status, ...]:
    """Watch a server for some seconds and return what it runs and does, for each of its bundles.

    Raises :class:`ServerError` if it or its metrics don't answer, or it isn't one of trackserve.
    """
    with contextlib.closing(connect(url, TIMEOUT)) as connection:
        first = _Served.read(connection, url, "")
        suffixes = ("", *first.description.bundles[1:])
        served = [first, *(_Served.read(connection, url, suffix) for suffix in suffixes[1:])]
    metrics_url = metrics_url or usual_metrics(url)
    before, began = read_statistics(url, metrics_url), time.monotonic()
    time.sleep(seconds)
    after, seconds = read_statistics(url, metrics_url), time.monotonic() - began
    return tuple(
        each.status(
            before.of(suffix, each.description.bundle),
            after.of(suffix, each.description.bundle),
            seconds=seconds,
            with_metrics=metrics_url is not None,
        )
        for suffix, each in zip(suffixes, served, strict=True)
    )


@dataclass(frozen=True)
class _Served:
    """What a server states about the models of one bundle: ``stages`` are those of an ensemble."""

    description: Description
    parameters: Mapping[str, str]
    stages: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, connection: Connection, url: str, suffix: str) -> _Served:
        model = TRACK_FINDING.of(suffix)
        parameters = connection.parameters(model)
        try:
            description, worker = Description.from_parameters(parameters), parameters["worker"]
        except (KeyError, ValueError):
            message = f"the model {model.name!r} at {url} is not one of trackserve"
            raise ServerError(message) from None
        stages = () if worker == PIPELINE else STAGES
        configs = {stage.name: connection.config(stage.of(suffix).name) for stage in stages}
        return cls(description, parameters, configs)

    def status(
        self, before: Statistics, after: Statistics, *, seconds: float, with_metrics: bool
    ) -> Status:
        """Return what was done between two looks at the server's statistics, ``seconds`` apart."""
        meanwhile = after.since(before)
        recent, ever = _events(meanwhile), _events(after)
        spent = (meanwhile if recent else after).spent() if ever else {}
        if self.stages:
            instances = {model: _instances(config) for model, config in self.stages.items()}
            parameters_of = {
                m: strings(config.get("parameters", {})) for m, config in self.stages.items()
            }
            worked = {m: meanwhile.seconds.get((m, "compute_infer"), 0.0) for m in self.stages}
        else:
            instances = {PIPELINE: int(self.parameters["at_once"])}
            parameters_of = {PIPELINE: dict(self.parameters)}
            worked = {PIPELINE: meanwhile.worked()} if with_metrics else {}
        return Status(
            description=self.description,
            shape="ensemble" if self.stages else "monolith",
            engine=self.parameters["engine"],
            device=self.parameters["device"],
            precision=self.parameters["precision"],
            instances=instances,
            threads={
                m: int(p.get("threads") or p["intra_op_thread_count"])
                for m, p in parameters_of.items()
            },
            seconds=seconds,
            events_per_s=recent / seconds,
            busy={m: min(1.0, busy / instances[m] / seconds) for m, busy in worked.items()},
            in_flight=_in_flight(after) if with_metrics else None,
            outcomes=_outcomes(after) if with_metrics else None,
            spent={part: spent[part] for part in PARTS if part in spent},
            recent=recent > 0,
            memory=after.memory if with_metrics else {},
        )


def _instances(config: Mapping[str, Any]) -> int:
    """Return how many instances a model has: of a group on GPUs, this many on each."""
    groups = config["instance_group"]
    return sum(group.get("count", 1) * max(1, len(group.get("gpus", []))) for group in groups)


def _events(statistics: Statistics) -> float:
    return sum(statistics.count.get((model.name, "success"), 0) for model in SERVED)


def _in_flight(statistics: Statistics) -> int:
    pending = metrics.PENDING.name
    return int(sum(n for (name, *_), n in statistics.counters.items() if name == pending))


def _outcomes(statistics: Statistics) -> dict[str, int]:
    counted: dict[str, int] = {}
    for (name, *labels), number in statistics.counters.items():
        if name == metrics.REQUESTS.name:
            outcome = labels[-1]
            counted[outcome] = counted.get(outcome, 0) + int(number)
    return counted
