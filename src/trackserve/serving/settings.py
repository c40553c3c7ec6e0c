"""How a bundle is served: the deployment shape, processes, threads and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from trackserve.contract.description import PIPELINE
from trackserve.contract.tensors import STAGES
from trackserve.contract.trace import check_collector
from trackserve.engines.registry import STAGES_ENGINE, engine, fastest
from trackserve.errors import BundleError, InputError
from trackserve.pipeline.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Mapping

NETWORKS = ("embedding", "filter", "gnn")
"""The stages that are networks: what Triton's onnxruntime backend can run."""


@dataclass(frozen=True)
class Settings:
    """The settings of a service, checked when made.

    ``shape`` is ``monolith`` (the whole pipeline in one model: nothing copied between stages) or
    ``ensemble`` (each stage a model with its own instances and metrics). ``instances`` (what works on
    one event at a time: a thread of a monolith, a stage's process) and ``threads`` (processor threads
    of one instance) go by name, :data:`PIPELINE` or a stage's, 1 where one isn't named. ``engine`` runs a monolith's pipeline, ``auto`` is
    the fastest on this machine (:mod:`trackserve.engines.registry`); the stages of an ensemble run on
    the reference. ``device`` is one of the engine's, ``auto`` its first, or several with commas between
    them: a monolith then has an instance on each, at least. ``precision`` is what networks
    are computed in, ``bundle`` the bundle's own.
    ``networks`` selects what runs the networks of an ensemble: the ``python`` backend, or the
    ``onnxruntime`` backend of NVIDIA's container. A request is refused when ``max_queue`` others
    wait, when it has waited for ``queue_timeout`` seconds, or when it has more than ``max_hits`` hits.
    ``budget`` replaces bounds of an event that the bundle sets (:mod:`trackserve.pipeline.budget`), by name.
    Up to ``batch`` waiting events of few hits go to a monolith's instance in one execution.
    ``log_requests`` selects the requests with a line in the server's log: ``none``, the ``failures``
    (unusable events and the server's own faults), or ``all``, the refused ones among them. Spans of
    requests go to ``trace``, the address of an OpenTelemetry collector (``http://host:port``), and to nobody if
    that is empty: of requests that are in a recorded trace, and of a share ``trace_share`` of those in none. With
    ``shared_memory`` clients on this machine may send their tensors through system shared memory, and
    then can make the server read and write any such region by its name.
    """

    shape: Literal["monolith", "ensemble"] = "monolith"
    engine: str = "auto"
    device: str = "auto"
    precision: str = "bundle"
    networks: Literal["python", "onnxruntime"] = "python"
    instances: Mapping[str, int] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    max_hits: int = 500_000
    max_queue: int = 64
    queue_timeout: float = 60.0
    batch: int = 1
    shared_memory: bool = False
    budget: Mapping[str, float | str] = field(default_factory=dict)
    log_requests: Literal["none", "failures", "all"] = "failures"
    trace: str = ""
    trace_share: float = 1.0

    def __post_init__(self) -> None:
        _check_choice("shape", self.shape, ("monolith", "ensemble"))
        if self.engine == "auto":
            chosen = STAGES_ENGINE if self.shape == "ensemble" else fastest()
            object.__setattr__(self, "engine", chosen)
        precisions = engine(self.engine).all_precisions
        _check_choice(
            f"precision of the {self.engine} engine", self.precision, ("bundle", *precisions)
        )
        _check_choice("networks", self.networks, ("python", "onnxruntime"))
        _check_choice("log_requests", self.log_requests, ("none", "failures", "all"))
        if self.shape == "monolith" and self.networks != "python":
            message = "a monolith runs its networks itself; choose the ensemble for onnxruntime"
            raise InputError(message)
        if self.shape == "ensemble" and self.batch != 1:
            message = (
                "an ensemble's stages take one event at a time; choose the monolith for a batch"
            )
            raise InputError(message)
        if self.shape == "ensemble" and self.engine != STAGES_ENGINE:
            message = f"an ensemble's stages run on the {STAGES_ENGINE} engine; choose the monolith for {self.engine}"
            raise InputError(message)
        for name in ("instances", "threads"):
            for model, number in getattr(self, name).items():
                _check_choice(f"model in {name}", model, self.models)
                _check_at_least_one(f"{name} of {model}", number)
        _check_at_least_one("max_hits", self.max_hits)
        _check_at_least_one("max_queue", self.max_queue)
        _check_at_least_one("batch", self.batch)
        try:
            Budget().changed(self.budget)
        except BundleError as error:
            raise InputError(str(error)) from None
        if self.trace:
            object.__setattr__(self, "trace", check_collector(self.trace))
        if not 0 <= self.trace_share <= 1:
            message = f"trace_share is {self.trace_share}; expected a number from 0 to 1"
            raise InputError(message)
        if not 0 < self.queue_timeout < 86_400:
            message = f"queue_timeout is {self.queue_timeout}; expected seconds, at most a day"
            raise InputError(message)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that have instances and threads in this shape."""
        stages = tuple(stage.name for stage in STAGES)
        return (PIPELINE,) if self.shape == "monolith" else stages

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices by name; the instances of a monolith take them in turn."""
        return tuple(self.device.split(","))

    @property
    def at_once(self) -> int:
        """How many events the instances of all models can work on at a time."""
        if self.shape == "monolith":
            return max(self.instances.get(PIPELINE, 1), len(self.devices))
        return sum(self.instances.get(model, 1) for model in self.models)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        message = f"{name} is {value!r}; expected one of {', '.join(choices)}"
        raise InputError(message)


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        message = f"{name} is {value}; expected at least 1"
        raise InputError(message)
