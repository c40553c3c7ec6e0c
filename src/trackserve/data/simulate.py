"""Simulated events: ttbar and pileup at 14 TeV in the detector of the TrackML challenge.

Pythia 8 makes the particles, ACTS' Fatras carries them through the Generic detector, geometric
digitisation turns their crossings into clusters of cells; noise is added here.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from trackserve.data.conditions import CONDITIONS, of_volume
from trackserve.data.noise import add_noise
from trackserve.data.readout import Transported, assemble, read_out, smear
from trackserve.data.trackml import Form, SimulatedEvent, write_event
from trackserve.errors import InputError, needs_extra
from trackserve.event import NOISE
from trackserve.files import write_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

_DEAD_MODULES = 2**32
"""Takes the place of an event number where modules are drawn that are dead in every event."""


@dataclass(frozen=True)
class Settings:
    """What events to simulate.

    ``conditions`` names the conditions (``trackserve.data.conditions``); the rest changes them for
    studies. ``pileup`` is the mean number of further collisions and ``noise`` the share of noise
    among all hits, those of the conditions if None; ``field_scale`` multiplies the 2 T field;
    ``beam_spot_offset`` moves the collisions (x, y, z, mm); ``dead_modules`` is the share of
    modules that give no hits. ``geometric`` digitisation takes a hit's position from its cells,
    ``smeared`` from where the particle crossed, blurred by pitch / sqrt(12).
    """

    seed: int
    conditions: str = "trackml"
    pileup: float | None = None
    noise: float | None = None
    field: Literal["solenoid", "constant"] = "solenoid"
    field_scale: float = 1.0
    beam_spot_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    dead_modules: float = 0.0
    digitisation: Literal["geometric", "smeared"] = "geometric"

    def __post_init__(self) -> None:
        choices = {
            "conditions": tuple(CONDITIONS),
            "field": ("solenoid", "constant"),
            "digitisation": ("geometric", "smeared"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                message = f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                raise InputError(message)
        limits = {
            "pileup": (0, 1000),
            "seed": (0, 2**63 - 1),
            "noise": (0, 0.9),
            "field_scale": (-10, 10),
            "dead_modules": (0, 1),
        }
        for name in ("pileup", "noise"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(CONDITIONS[self.conditions], name))
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                message = f"{name} is {value}; expected a number from {low} to {high}"
                raise InputError(message)


def check_installed() -> None:
    """Raise MissingDependencyError unless the packages that simulate events are installed."""
    with needs_extra("sim", "simulating events"):
        for package in ("acts.examples", "pyarrow", "pythia8mc"):
            importlib.import_module(package)


class Simulator:
    """Pythia and ACTS set up once (about a second); every event depends on its number only."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        check_installed()
        from trackserve.data.detector import build_detector
        from trackserve.data.generate import Collisions
        from trackserve.data.transport import Transport

        self._settings = settings
        self._conditions = CONDITIONS[settings.conditions]
        assert settings.pileup is not None
        self._collisions = Collisions(self._conditions, settings.pileup, settings.beam_spot_offset)
        self._transport = Transport(build_detector(), settings.field, settings.field_scale, scratch)
        random = np.random.default_rng([settings.seed, _DEAD_MODULES])
        self._alive = random.random(len(self._transport.surfaces)) >= settings.dead_modules

    def simulate(self, event_id: int) -> SimulatedEvent:
        """Simulate one event."""
        random = np.random.default_rng([self._settings.seed, event_id])
        surfaces, conditions = self._transport.surfaces, self._conditions
        transported = self._transported(random)
        readout = read_out(transported, surfaces, self._alive)
        if self._settings.digitisation == "smeared":
            readout = smear(readout, transported, surfaces, random)
        noise = transported.crossings.particle_id[readout.crossing] == NOISE
        share = self._settings.noise
        assert share is not None
        readout = add_noise(
            readout,
            noise,
            share,
            surfaces=surfaces,
            conditions=conditions,
            alive=self._alive,
            random=random,
        )
        return assemble(event_id, readout, surfaces, transported)

    def _transported(self, random: np.random.Generator) -> Transported:
        """Carry one event through the detector, and then what nuclear interactions made of it."""
        from trackserve.data.digitise import digitise
        from trackserve.data.interactions import interact, products

        surfaces, conditions = self._transport.surfaces, self._conditions
        generated = self._collisions.generate(random)
        converts = random.random(len(generated)) < conditions.photons
        moving = generated.take(
            (generated.pt >= conditions.transported_pt) & (converts | (generated.charge != 0))
        )
        crossings, born = self._transport.run(moving, seed=int(random.integers(2**31)))
        charged = generated.take(generated.charge != 0) + born
        happens, interactions = interact(crossings, charged, surfaces, conditions, random)
        made = products(interactions, random)
        more, born_of_made = self._transport.run(made, seed=int(random.integers(2**31)))
        made += born_of_made
        more_happens, _ = interact(more, made, surfaces, conditions, random)
        crossings = crossings.take(happens) + more.take(more_happens)
        volume = surfaces.volume_id[crossings.surface]
        hit = random.random(len(crossings)) >= of_volume(conditions.missed, volume)
        particles = charged + made
        particles = particles.take(particles.pt >= conditions.listed_pt)
        listed = np.isin(crossings.particle_id, particles.particle_id)
        crossings = replace(
            crossings, particle_id=np.where(listed, crossings.particle_id, NOISE)
        ).take(hit)
        return Transported(particles, crossings, digitise(crossings, surfaces, conditions, random))


def simulate_events(events: Sequence[int], seed: int, **settings: Any) -> Iterator[SimulatedEvent]:
    """Simulate events of these numbers, one after the other, in this process.

    ``settings`` are those of ``Settings``. An event is the same whichever others are made with it.
    Raises MissingDependencyError without ``trackserve[sim]``.
    """
    with tempfile.TemporaryDirectory(prefix="trackserve-") as scratch:
        simulator = Simulator(Settings(seed, **settings), Path(scratch))
        for event_id in events:
            yield simulator.simulate(event_id)


def simulate(
    directory: Path,
    *,
    events: int,
    seed: int,
    workers: int | None = None,
    first_event: int = 0,
    form: Form = "csv.gz",
    progress: bool = True,
    **settings: Any,
) -> None:
    """Write ``events`` events, numbered from ``first_event``, in TrackML's format to ``directory``.

    ``form`` is how their tables are written: csv, csv.gz or parquet.
    Uses ``workers`` processes (all cores if None); the files do not depend on how many. Events that
    are there already are kept, so a run that was stopped goes on; ``simulation.json`` beside them
    records settings, seed and versions, and a directory of other settings is refused.
    Raises InputError, MissingDependencyError without ``trackserve[sim]``.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    for name, value, least in (("events", events, 0), ("workers", workers, 1)):
        if value < least:
            message = f"{name} is {value}; expected {least} or more"
            raise InputError(message)
    if form not in get_args(Form):
        message = f"form is {form!r}; expected one of {', '.join(get_args(Form))}"
        raise InputError(message)
    chosen = Settings(seed, **settings)
    check_installed()
    directory.mkdir(parents=True, exist_ok=True)
    _record(directory, chosen)
    wanted = range(first_event, first_event + events)
    missing = [event for event in wanted if not _hits_file(directory, event, form).exists()]
    with (
        tempfile.TemporaryDirectory(prefix="trackserve-") as scratch,
        tqdm(
            total=events,
            initial=events - len(missing),
            unit="event",
            disable=None if progress else True,
        ) as bar,
    ):
        if min(workers, len(missing)) > 1:
            finished = _in_parallel(
                directory, form, chosen, missing, workers=workers, scratch=Path(scratch)
            )
        else:
            finished = _in_turn(directory, form, chosen, missing, Path(scratch))
        with closing(finished):
            for _ in finished:
                bar.update()


def _in_turn(
    directory: Path, form: Form, settings: Settings, events: list[int], scratch: Path
) -> Generator[None, None, None]:
    if not events:
        return
    simulator = Simulator(settings, scratch)
    for event in events:
        write_event(directory, simulator.simulate(event), form)
        yield


def _in_parallel(
    directory: Path,
    form: Form,
    settings: Settings,
    events: list[int],
    *,
    workers: int,
    scratch: Path,
) -> Generator[None, None, None]:
    pool = ProcessPoolExecutor(
        min(workers, len(events)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(settings, scratch),
    )
    try:
        for done in as_completed([pool.submit(_write, directory, event, form) for event in events]):
            yield done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_simulator: Simulator | None = None
"""The simulator of this process, which its events share."""


def _start_worker(settings: Settings, scratch: Path) -> None:
    global _simulator  # noqa: PLW0603 - a pool has no other place for what its process keeps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    own = scratch / str(os.getpid())
    own.mkdir()
    _simulator = Simulator(settings, own)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when the one that started it is gone, however that came about."""
    parent.join()
    os._exit(1)


def _write(directory: Path, event_id: int, form: Form) -> None:
    assert _simulator is not None
    write_event(directory, _simulator.simulate(event_id), form)


def _hits_file(directory: Path, event_id: int, form: Form) -> Path:
    return directory / f"event{event_id:09d}-hits.{form}"


def _record(directory: Path, settings: Settings) -> None:
    """Write ``simulation.json``, or refuse a directory whose events were made otherwise."""
    versions = {name: _version(name) for name in ("trackserve", "pyacts", "pythia8mc", "numpy")}
    # The conditions go in by value too: a table that changed makes other events under its name.
    settings_now = {**asdict(settings), "values": asdict(CONDITIONS[settings.conditions])}
    record = {"settings": json.loads(json.dumps(settings_now)), "versions": versions}
    path = directory / "simulation.json"
    if path.exists():
        before = json.loads(path.read_text())
        if before["settings"] != record["settings"]:
            message = (
                f"{path} records other settings ({before['settings']}); "
                f"expected {record['settings']}: choose another directory"
            )
            raise InputError(message)
        return
    write_text(path, json.dumps(record, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
