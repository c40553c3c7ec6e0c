"""What the study of the service measures on: bundle, events, settings, and how long."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from studies.record import ROOT
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.load.load import Events, mix
from trackserve.serving.settings import Settings
from trackserve.serving.settings_file import read_settings

if TYPE_CHECKING:
    import argparse

    from trackserve.event import Hits

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
CORES = len(os.sched_getaffinity(0))
BUSY = CORES + 2
"""Requests at once that keep every core at work."""
KINDS = ("small", "pu20", "pu200")
TUNED = ROOT / "docs/tuning"
MOST_EVENTS = 10
SMALL_EVENT = 1321
"""Hits of a small event: the mean of the published Exa.TrkX clients' events; the nearest are taken."""


class Study:
    """What is measured on: bundle, events by kind, settings, and how long."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.bundle = read_bundle(options.bundle)
        self.settings = (
            read_settings(options.settings)
            if options.settings
            else Settings(engine="native", instances={"pipeline": CORES}, shared_memory=True)
        )
        self.given = options.settings is not None
        self.quick = options.quick
        self.perf_analyzer = options.perf_analyzer
        columns = self.bundle.features.wire_columns
        self.hits: dict[str, list[Hits]] = {}
        for kind in KINDS:
            sources = find_events(getattr(options, kind))[
                : None if kind == "small" else MOST_EVENTS
            ]
            hits = [source.read_columns(columns, truth=False).hits for source in sources]
            if kind == "small":
                hits.sort(key=lambda each: abs(len(each) - SMALL_EVENT))
            self.hits[kind] = hits[:MOST_EVENTS]
        self.open = partial(
            open_pipeline,
            self.bundle,
            engine=self.settings.engine,
            precision=None if self.settings.precision == "bundle" else self.settings.precision,
        )
        self._labels: dict[str, list[Any]] = {}

    def tuned(self, kind: str) -> Settings:
        """Return the settings that `tune` found for a kind of events, if none are given.

        Every way of sending is open, and nothing is refused.
        """
        path = TUNED / kind / "settings.toml"
        if self.given or not path.exists():
            return self.settings
        return replace(read_settings(path), shared_memory=True, max_queue=self.settings.max_queue)

    def seconds(self, full: float) -> float:
        """Return how long to measure what takes ``full`` seconds in the whole study."""
        return max(0.5, full / 150) if self.quick else full

    def repeats(self, full: int) -> int:
        """Return how often to measure."""
        return 1 if self.quick else full

    def requests(self, full: int) -> int:
        """Return how many requests to send."""
        return full // 10 if self.quick else full

    def events(self, url: str, kind: str) -> Events:
        """Return the events of a kind as the server at a URL takes them, with the labels of this process."""
        if kind not in self._labels:
            pipeline = self.open()
            self._labels[kind] = [pipeline.find_tracks(h).labels for h in self.hits[kind]]
        with Client(url) as client:
            return mix(client, [(kind, self.hits[kind])]).expecting(self._labels[kind])


def plain(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON values, without what is not set."""
    return {name: value for name, value in vars(settings).items() if value != {}}
