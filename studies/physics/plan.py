"""What is judged: the events of each condition, and the finders that they are given to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studies.physics.judge import BundleFinder, Job, KalmanFinder
from trackserve.data.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SEED, PILEUP = 3, 200


@dataclass(frozen=True)
class Sample:
    """Events to be simulated: how many, and in what they differ from the nominal ones."""

    name: str
    events: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = SEED

    def ready(self, folder: Path, workers: int) -> Path:
        """Simulate the events that are not in ``folder`` and return it."""
        settings = {"conditions": "hl-lhc", "pileup": PILEUP, **self.settings}
        simulate(folder, events=self.events, seed=self.seed, workers=workers, **settings)
        return folder


MAIN = Sample("test200", 20)
PILEUP_20 = Sample("test20", 20, {"pileup": 20}, seed=13)
ELSEWHERE = {
    "pileup 0": Sample("pileup-0", 30, {"pileup": 0}),
    "pileup 50": Sample("pileup-50", 6, {"pileup": 50}),
    "pileup 100": Sample("pileup-100", 4, {"pileup": 100}),
    "pileup 300": Sample("pileup-300", 3, {"pileup": 300}),
    "no noise": Sample("no-noise", 3, {"noise": 0.0}),
    "30 % noise": Sample("noise-30-percent", 3, {"noise": 0.3}),
    "5 % dead modules": Sample("dead-modules-5-percent", 3, {"dead_modules": 0.05}),
    "field 2 % higher": Sample("field-2-percent-higher", 3, {"field_scale": 1.02}),
    "field 2 % lower": Sample("field-2-percent-lower", 3, {"field_scale": 0.98}),
    "beam spot moved by 1 mm": Sample(
        "beam-spot-moved-1-mm", 3, {"beam_spot_offset": (1.0, 0.0, 0.0)}
    ),
    "constant field": Sample("constant-field", 3, {"field": "constant"}),
    "smeared digitisation": Sample("smeared-digitisation", 3, {"digitisation": "smeared"}),
}
"""Conditions that nothing was trained on."""
FEW = 3
"""Events on which the bundle gets x, y, z alone."""
ENGINES = ("float32", "reference engine")
"""The jobs that compare both engines in full precision on the nominal events."""
TEN_BRANCHES_EVENTS = 1
"""Its settings were not tuned for these events: it is there for the time, not for an efficiency to a tenth."""


@dataclass(frozen=True)
class Plan:
    """Every job of the report; ``limit`` bounds the events of each for a first look."""

    main: Path
    pileup_20: Path
    elsewhere: Mapping[str, Path]
    bundle: Path | None
    limit: int | None = None

    def jobs(self) -> dict[str, Job]:
        """Return the jobs by name, the ones that matter most first."""
        ours = BundleFinder(self.bundle)
        few = min(FEW, self.limit or FEW)
        wanted = {
            "main": Job(ours, self.main, self.limit),
            "ckf fast": Job(KalmanFinder("fast"), self.main, self.limit),
            "ckf best": Job(KalmanFinder("best"), self.main, self.limit),
            "float32": Job(BundleFinder(self.bundle, precision="float32"), self.main, self.limit),
            "pileup 20": Job(ours, self.pileup_20, self.limit),
            "ckf pileup 20": Job(KalmanFinder("best"), self.pileup_20, self.limit),
        }
        for name, folder in self.elsewhere.items():
            wanted[name] = Job(ours, folder, self.limit)
            wanted[f"ckf {name}"] = Job(KalmanFinder("best"), folder, self.limit)
        return {
            **wanted,
            "positions only": Job(BundleFinder(self.bundle, positions_only=True), self.main, few),
            "reference engine": Job(BundleFinder(self.bundle, "reference"), self.main, self.limit),
            "ckf ten branches": Job(KalmanFinder("ten branches"), self.main, TEN_BRANCHES_EVENTS),
        }
