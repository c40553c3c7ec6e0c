"""A load: which events, how many in flight or at which rate, and the processes that send them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from trackserve.client.table import as_float32, hits_table
from trackserve.contract.tensors import EXATRKX, TRACK_FINDING, split_name
from trackserve.errors import InputError, ServerError, TrackserveError
from trackserve.load.worker import RECORD, Task, run_task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from numpy.typing import NDArray

    from trackserve.client import Client
    from trackserve.contract.description import Description
    from trackserve.contract.tensors import Model
    from trackserve.event import Float32, Hits, Int64

START_SECONDS = 60.0
"""A process of the load that hasn't connected by then has failed."""


@dataclass(frozen=True)
class Load:
    """How a server is loaded for ``seconds``, after ``warm_up`` seconds of the same load.

    Closed loop: ``concurrency`` requests are in flight, and an answer makes way for the next one.
    Open loop: requests arrive at random (Poisson) at ``rate`` a second, whatever becomes of those
    before, and their latency counts from the moment at which they were to be sent. The load comes
    from ``processes`` processes (0: one a core, no more than requests in flight).
    """

    concurrency: int = 0
    rate: float = 0.0
    seconds: float = 10.0
    warm_up: float = 1.0
    timeout: float = 60.0
    shared_memory: bool = False
    processes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.concurrency > 0) == (self.rate > 0):
            message = (
                f"concurrency is {self.concurrency} and rate {self.rate:g}; "
                "give one of them, above 0"
            )
            raise InputError(message)
        for name in ("seconds", "timeout"):
            if not getattr(self, name) > 0:
                message = f"{name} is {getattr(self, name)}; expected seconds above 0"
                raise InputError(message)
        for name in ("warm_up", "processes", "seed"):
            if getattr(self, name) < 0:
                message = f"{name} is {getattr(self, name)}; expected at least 0"
                raise InputError(message)

    @property
    def senders(self) -> int:
        """The number of processes that send."""
        cores = len(os.sched_getaffinity(0))
        return min(self.processes or cores, self.concurrency or cores + self.processes)

    def __str__(self) -> str:
        return f"{self.concurrency} in flight" if self.concurrency else f"{self.rate:g}/s"


@dataclass(frozen=True, eq=False)
class Events:
    """What is sent: hits ``[N, C]`` in the model's columns, and how often each event comes.

    ``model`` is the one to send to, of the server's ``bundle``; ``exatrkx`` takes scaled features ``[N, F]``.

    ``weights`` ``[n]`` are relative. ``groups`` ``[n]`` gives the kind of each event, by its place in
    ``names``: what is mixed, for a report by kind. ``expected`` are the labels of each event, if
    answers are to be checked; those ``also`` of another bundle are right, too, for a roll during the load.
    """

    tables: list[Float32]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]
    names: tuple[str, ...]
    expected: list[Int64] | None = None
    also: list[Int64] | None = None
    model: Model = TRACK_FINDING
    bundle: str = ""

    def __post_init__(self) -> None:
        if not self.tables:
            message = "there are no events to send; expected at least one"
            raise InputError(message)
        if not (self.weights > 0).all():
            message = "weights of events must be above 0"
            raise InputError(message)

    @property
    def hits(self) -> NDArray[np.int64]:
        """The number of hits of each event ``[n]``."""
        return np.array([len(table) for table in self.tables])

    def expecting(
        self, labels: Sequence[NDArray[Any]], also: Sequence[NDArray[Any]] | None = None
    ) -> Events:
        """Return the events with the labels that each is to be answered with, these or ``also`` those."""
        expected, other = (
            None if each is None else [np.ascontiguousarray(one, np.int64) for one in each]
            for each in (labels, also)
        )
        return replace(self, expected=expected, also=other)


def mix(
    client: Client,
    kinds: Sequence[tuple[str, Sequence[Hits | NDArray[Any]]]],
    weights: Sequence[float] = (),
    *,
    features: bool = False,
) -> Events:
    """Return kinds of events (name and events) as the client's bundle takes them.

    Events are hits, or scaled ``features`` ``[N, F]``. A weight is the share of a kind among the requests (default: the same for each); its events share
    it evenly.
    """
    weights = weights or [1.0] * len(kinds)
    if len(weights) != len(kinds):
        message = f"there are {len(weights)} weights for {len(kinds)} kinds of events"
        raise InputError(message)
    description = client.description
    tables = [
        _features_table(each, description) if features else hits_table(each, description)
        for _, events in kinds
        for each in events
    ]
    each = [w / len(e) for w, (_, e) in zip(weights, kinds, strict=True) for _ in e]
    groups = [i for i, (_, events) in enumerate(kinds) for _ in events]
    return Events(
        tables,
        np.array(each),
        np.array(groups, int),
        tuple(name for name, _ in kinds),
        model=(EXATRKX if features else TRACK_FINDING).of(description.suffix(client.bundle)),
        bundle=description.bundle,
    )


def _features_table(features: object, description: Description) -> Float32:
    expected = f"[N, {len(description.features)}]: {', '.join(description.features)}, each divided by its scale"
    table = as_float32(features, "features", expected)
    if table.shape[1] != len(description.features):
        message = f"features have {table.shape[1]} columns; expected {expected}"
        raise InputError(message)
    return table


def first_answers(client: Client, events: Events) -> Events:
    """Return the events with the labels that a server gives now, asked one by one, as expected."""
    asked = tqdm(events.tables, desc="first answers", unit="event", disable=None, leave=False)
    features = split_name(events.model.name)[0] == EXATRKX.name
    ask = client.find_tracks_from_features if features else client.find_tracks
    return events.expecting([ask(table).labels for table in asked])


@dataclass(frozen=True, eq=False)
class Records:
    """How every request ended: rows of :data:`RECORD`, times in seconds from the start.

    The load was measured from ``begin`` to ``end``.
    """

    rows: NDArray[Any]
    begin: float
    end: float

    @property
    def measured(self) -> NDArray[Any]:
        """The requests that arrived while the load was measured."""
        arrival = self.rows["arrival"]
        return self.rows[(arrival >= self.begin) & (arrival < self.end)]


def drive(
    url: str, events: Events, load: Load, *, progress: bool = False, marks: Sequence[Any] = ()
) -> Records:
    """Load a server and return how every request ended; all have ended when this returns.

    Of two ``marks`` one is called when the load has warmed up, the other when it ends.
    Raises :class:`ServerError` where a process can't connect or fails.
    """
    context = multiprocessing.get_context("spawn")
    senders = load.senders
    ready, sent = context.Barrier(senders + 1), context.Value("q", 0)
    begin = context.Value("d", 0.0)
    answers: Any = context.Queue()
    processes: list[BaseProcess] = []
    for number in range(senders):
        share = load.concurrency // senders + (number < load.concurrency % senders)
        task = Task(
            url=url,
            tables=events.tables,
            probabilities=events.weights / events.weights.sum(),
            expected=events.expected,
            also=events.also,
            concurrency=share,
            rate=load.rate / senders,
            seconds=load.warm_up + load.seconds,
            timeout=load.timeout,
            shared_memory=load.shared_memory,
            model=events.model,
            seed=(load.seed, number),
        )
        arguments = (task, ready, begin, sent, answers)
        processes.append(context.Process(target=run_task, args=arguments, daemon=True))
    try:
        for process in processes:
            process.start()
        _wait(ready, processes, answers)
        begin.value = start = time.monotonic() + 0.05
        ready.wait(START_SECONDS)
        _watch(load, start, sent, marks, progress=progress)
        rows = _gather(processes, answers, load)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            if process.pid is not None:
                process.join()
        answers.close()
    rows = np.concatenate(rows)
    for moment in ("arrival", "sent", "received", "done"):
        rows[moment] -= start
    rows.sort(order="arrival")
    return Records(rows, load.warm_up, load.warm_up + load.seconds)


def _wait(ready: Any, processes: Sequence[BaseProcess], answers: Any) -> None:
    """Wait until every process has connected; raises what one of them failed with."""
    deadline = time.monotonic() + START_SECONDS
    while ready.n_waiting < len(processes):
        with contextlib.suppress(queue.Empty):
            raise answers.get(timeout=0.01)
        if time.monotonic() > deadline or not all(p.is_alive() for p in processes):
            with contextlib.suppress(queue.Empty):
                raise answers.get(timeout=1)
            message = "a process of the load ended before it had connected"
            raise ServerError(message)
    ready.wait(START_SECONDS)


def _watch(load: Load, start: float, sent: Any, marks: Sequence[Any], *, progress: bool) -> None:
    """Show how far the load is, and call the marks at the warm-up's end and at the load's."""
    whole = load.warm_up + load.seconds
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
    with tqdm(
        total=whole, desc=str(load), disable=None if progress else True, bar_format=form
    ) as bar:
        for moment, mark in zip((load.warm_up, whole), marks or (None, None), strict=True):
            while (left := start + moment - time.monotonic()) > 0:
                time.sleep(min(left, 0.25))
                bar.update(min(time.monotonic() - start, whole) - bar.n)
                bar.set_postfix_str(f"{sent.value:,} requests")
            if mark is not None:
                mark()


def _gather(processes: Sequence[BaseProcess], answers: Any, load: Load) -> list[NDArray[Any]]:
    deadline = time.monotonic() + load.timeout + START_SECONDS
    rows: list[NDArray[Any]] = []
    while len(rows) < len(processes):
        try:
            found = answers.get(timeout=1)
        except queue.Empty:
            if time.monotonic() > deadline or not any(p.is_alive() for p in processes):
                message = "a process of the load ended without a record of what it had sent"
                raise ServerError(message) from None
            continue
        if isinstance(found, TrackserveError):
            raise found
        rows.append(np.asarray(found, RECORD))
    return rows
