from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("acts")
pytest.importorskip("pythia8mc")

from trackserve.data.conditions import CONDITIONS
from trackserve.data.detector import PITCH, build_detector, read_surfaces
from trackserve.data.generate import pack_barcode, unpack_barcode
from trackserve.data.noise import _uniform_on
from trackserve.data.simulate import Settings, simulate, simulate_events
from trackserve.data.trackml import SimulatedEvent, find_events
from trackserve.errors import InputError, MissingDependencyError
from trackserve.event import NOISE

if TYPE_CHECKING:
    from trackserve.data.detector import Surfaces
    from trackserve.event import Bool, Float64, Int64

EVENTS = 2
WRITTEN = 3
"""Events on disk: of the two that a stopped run has left each of two workers writes one."""


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return read_surfaces(build_detector())


@pytest.fixture(scope="module")
def plain() -> list[SimulatedEvent]:
    return list(simulate_events(range(EVENTS), seed=1, pileup=1))


@pytest.fixture(scope="module")
def odd() -> list[SimulatedEvent]:
    """Events with every setting away from its usual value."""
    return list(
        simulate_events(
            range(EVENTS),
            seed=1,
            pileup=0,
            noise=0.3,
            field="constant",
            field_scale=0.0,
            beam_spot_offset=(1.0, -2.0, 30.0),
            dead_modules=0.4,
            digitisation="smeared",
        )
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone")
    simulate(directory, pileup=1, events=WRITTEN, seed=7, workers=1, progress=False)
    return directory


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def module_rows(simulated: SimulatedEvent, surfaces: Surfaces) -> Int64:
    modules = simulated.event.hits.modules
    assert modules is not None
    known = {
        place: row
        for row, place in enumerate(
            zip(
                surfaces.volume_id.tolist(),
                surfaces.layer_id.tolist(),
                surfaces.module_id.tolist(),
                strict=True,
            )
        )
    }
    places = zip(
        modules.volume_id.tolist(),
        modules.layer_id.tolist(),
        modules.module_id.tolist(),
        strict=True,
    )
    return np.array([known[place] for place in places])


def positions(simulated: SimulatedEvent) -> Float64:
    hits = simulated.event.hits
    return np.column_stack([hits.x, hits.y, hits.z]).astype(np.float64)


def is_noise(simulated: SimulatedEvent) -> Bool:
    assert simulated.event.truth is not None
    noise: Bool = simulated.event.truth.particle_id == NOISE
    return noise


def particle_rows(simulated: SimulatedEvent) -> Int64:
    """Return the row of the particle of each hit that is not noise."""
    truth = simulated.event.truth
    assert truth is not None
    order = np.argsort(truth.particles.particle_id)
    real = truth.particle_id[truth.particle_id != NOISE]
    rows: Int64 = order[np.searchsorted(truth.particles.particle_id, real, sorter=order)]
    return rows


def test_the_detector_is_that_of_trackml(surfaces: Surfaces) -> None:
    assert len(surfaces) == 18728
    assert set(surfaces.volume_id.tolist()) == set(PITCH)
    assert set(surfaces.layer_id.tolist()) == {2, 4, 6, 8, 10, 12, 14}
    nominal = np.array([PITCH[volume] for volume in surfaces.volume_id.tolist()])
    # A module holds a whole number of cells, so the longest strips are up to 4 % off.
    assert np.abs(surfaces.pitch / nominal - 1).max() < 0.04
    assert np.abs(surfaces.pitch[:, 0] / nominal[:, 0] - 1).max() < 0.002


def test_hits_lie_on_their_modules(plain: list[SimulatedEvent], surfaces: Surfaces) -> None:
    for simulated in plain:
        rows = module_rows(simulated, surfaces)
        local = surfaces.to_local(rows, positions(simulated))
        assert np.abs(local[:, 2]).max() < 1e-3
        assert (np.abs(local[:, :2]) < surfaces.half_size[rows]).all()


def test_hits_are_where_the_particle_crossed_within_the_cells(
    plain: list[SimulatedEvent], surfaces: Surfaces
) -> None:
    off = []
    for simulated in plain:
        real = ~is_noise(simulated)
        rows = module_rows(simulated, surfaces)[real]
        hit = surfaces.to_local(rows, positions(simulated)[real])
        true = surfaces.to_local(rows, simulated.true_position[real].astype(np.float64))
        assert np.abs(true[:, 2]).max() < 1e-3
        off.append((hit - true)[:, :2] / surfaces.pitch[rows])
    in_pitches = np.concatenate(off)
    assert (np.abs(in_pitches) < 1).mean() > 0.97
    assert in_pitches.std(axis=0).min() > 0.1
    assert np.median(np.abs(in_pitches)) < 0.5


def test_hits_without_particle_are_the_share_asked_for(
    plain: list[SimulatedEvent], odd: list[SimulatedEvent]
) -> None:
    for events, share in ((plain, 0.15), (odd, 0.3)):
        for simulated in events:
            assert is_noise(simulated).mean() == pytest.approx(share, abs=1e-3)


def test_noise_lies_in_every_volume_with_cells_of_real_hits(plain: list[SimulatedEvent]) -> None:
    for simulated in plain:
        clusters, modules = simulated.event.hits.clusters, simulated.event.hits.modules
        assert clusters is not None
        assert modules is not None
        noise = is_noise(simulated)
        assert clusters.cells[noise].min() >= 1
        assert clusters.cells[noise].mean() > 1.5
        assert len(set(modules.volume_id[noise].tolist())) >= 8
        assert not simulated.true_momentum[noise].any()


def test_cells_make_up_the_clusters(plain: list[SimulatedEvent]) -> None:
    for simulated in plain:
        clusters = simulated.event.hits.clusters
        assert clusters is not None
        assert (np.diff(simulated.cells.hit_id) >= 0).all()
        count = np.bincount(simulated.cells.hit_id, minlength=len(clusters) + 1)[1:]
        assert (count == clusters.cells).all()
        assert (clusters.cells >= 1).all()
        cell = np.column_stack([simulated.cells.hit_id, simulated.cells.ch0, simulated.cells.ch1])
        assert len(np.unique(cell, axis=0)) == len(cell)
        assert (simulated.cells.value > 0).all()


def test_truth_fits_together(plain: list[SimulatedEvent]) -> None:
    for simulated in plain:
        truth = simulated.event.truth
        assert truth is not None
        particles = truth.particles
        assert simulated.event.hits.hit_id.tolist() == list(range(1, len(truth) + 1))
        assert truth.weight.sum() == pytest.approx(1)
        assert set(np.abs(particles.q).tolist()) == {1.0}
        left_hits = np.bincount(particle_rows(simulated), minlength=len(particles))
        central = (np.abs(particles.eta) < 3) & (particles.pt > 1) & particles.primary
        assert 0.7 < (left_hits[central] >= 6).mean() < 1
        assert left_hits.max() <= 40
        at_hit = np.linalg.norm(simulated.true_momentum[~is_noise(simulated)], axis=1)
        momentum = np.sqrt(particles.px**2 + particles.py**2 + particles.pz**2)
        assert np.median(at_hit / momentum[particle_rows(simulated)]) == pytest.approx(1, abs=0.02)


def test_primaries_are_those_that_collisions_made_promptly(plain: list[SimulatedEvent]) -> None:
    for simulated in plain:
        truth = simulated.event.truth
        assert truth is not None
        particles = truth.particles
        _, secondary_vertex, _, generation, _ = unpack_barcode(particles.particle_id)
        assert (particles.primary == ((secondary_vertex == 0) & (generation == 0))).all()
        assert 0 < particles.primary.mean() < 1
        assert np.median(particles.production_radius[particles.primary]) < 0.1
        assert np.median(particles.production_radius[~particles.primary]) > 2


def test_settings_do_what_they_say(
    plain: list[SimulatedEvent], odd: list[SimulatedEvent], surfaces: Surfaces
) -> None:
    seen: set[int] = set()
    for simulated in odd:
        truth = simulated.event.truth
        assert truth is not None
        particles = truth.particles
        prompt = particles.primary & (particles.production_radius < 5)
        assert np.median(particles.vx[prompt]) == pytest.approx(1, abs=0.1)
        assert np.median(particles.vy[prompt]) == pytest.approx(-2, abs=0.1)

        real, rows = ~is_noise(simulated), particle_rows(simulated)
        straight = (particles.pt > 5)[rows] & particles.primary[rows]
        path = (
            simulated.true_position[real][straight]
            - np.column_stack([particles.vx, particles.vy, particles.vz])[rows[straight]]
        )
        turn = np.arctan2(path[:, 1], path[:, 0]) - particles.phi[rows[straight]]
        assert np.median(np.abs(turn)) < 1e-3

        modules = module_rows(simulated, surfaces)
        seen |= set(modules.tolist())
        hit = surfaces.to_local(modules[real], positions(simulated)[real])
        true = surfaces.to_local(modules[real], simulated.true_position[real].astype(np.float64))
        in_pitches = (hit - true)[:, :2] / surfaces.pitch[modules[real]]
        assert in_pitches.std(axis=0) == pytest.approx(12**-0.5, abs=0.04)

    alive = np.random.default_rng([1, 2**32]).random(len(surfaces)) >= 0.4
    assert alive[list(seen)].all()
    used = {row for simulated in plain for row in module_rows(simulated, surfaces).tolist()}
    assert 0.3 < 1 - alive[list(used)].mean() < 0.5


def test_a_field_along_z_turns_positive_particles_clockwise(plain: list[SimulatedEvent]) -> None:
    for simulated in plain:
        truth = simulated.event.truth
        assert truth is not None
        rows = particle_rows(simulated)
        momentum = simulated.true_momentum[~is_noise(simulated)]
        turn = np.arctan2(momentum[:, 1], momentum[:, 0]) - truth.particles.phi[rows]
        turn = np.remainder(turn + np.pi, 2 * np.pi) - np.pi
        stiff = (truth.particles.pt > 1)[rows] & truth.particles.primary[rows]
        assert (np.sign(turn[stiff]) == -truth.particles.q[rows[stiff]]).mean() > 0.8


def test_noise_is_uniform_over_a_trapezoid(surfaces: Surfaces) -> None:
    row = int(np.argmax(surfaces.half_width[:, 1] / surfaces.half_width[:, 0]))
    lower, upper = surfaces.half_width[row]
    half = surfaces.half_length[row]
    points = _uniform_on(surfaces, np.full(40000, row), np.random.default_rng(0))
    u, v = points.T
    half_width = lower + (upper - lower) * (v + half) / (2 * half)
    assert (np.abs(u) <= half_width).all()
    assert (np.abs(v) <= half).all()
    # The share of a trapezoid's area above its middle height.
    expected = (lower + 3 * upper) / (4 * (lower + upper))
    assert (v > 0).mean() == pytest.approx(expected, abs=0.01)
    assert (np.abs(u / half_width) < 0.5).mean() == pytest.approx(0.5, abs=0.01)


def test_barcodes_pack_and_unpack() -> None:
    parts = (300, 4095, 65535, 255, 65535)
    packed = pack_barcode(*parts)
    assert int(packed) > 0
    assert tuple(int(part) for part in unpack_barcode(packed)) == parts


def test_two_workers_go_on_where_a_run_stopped_and_write_the_same_bytes(
    written: Path, tmp_path: Path
) -> None:
    there = [path for path in written.iterdir() if path.name.startswith("event000000001")]
    for path in (*there, written / "simulation.json"):
        shutil.copy2(path, tmp_path)
    simulate(tmp_path, pileup=1, events=WRITTEN, seed=7, workers=2, progress=False)
    assert digests(tmp_path) == digests(written)
    assert len(digests(tmp_path)) == 4 * WRITTEN + 1
    for path in there:
        assert (tmp_path / path.name).stat().st_mtime_ns == path.stat().st_mtime_ns


def test_parquet_holds_the_same_events(written: Path, tmp_path: Path) -> None:
    simulate(tmp_path, pileup=1, events=1, seed=7, workers=1, form="parquet", progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet", ".json"}
    one, other = (find_events(folder)[0].read(cells=True) for folder in (tmp_path, written))
    assert one.truth is not None
    assert other.truth is not None
    for column in ("hit_id", "x", "y", "z"):
        assert np.array_equal(getattr(one.hits, column), getattr(other.hits, column))
    assert np.array_equal(one.truth.particle_id, other.truth.particle_id)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"form is 'xml'; expected one of csv"):
        simulate(tmp_path, pileup=1, events=1, seed=7, form="xml")  # type: ignore[arg-type]


def test_another_seed_gives_another_event(written: Path, plain: list[SimulatedEvent]) -> None:
    for source, simulated in zip(find_events(written)[:EVENTS], plain, strict=True):
        event = source.read()
        assert event.event_id == simulated.event.event_id
        assert len(event.hits) != len(simulated.event.hits)


def test_a_directory_keeps_to_one_kind_of_events(written: Path) -> None:
    record = json.loads((written / "simulation.json").read_text())
    assert record["settings"]["seed"] == 7
    assert record["versions"]["pyacts"]
    with pytest.raises(InputError, match="choose another directory"):
        simulate(written, pileup=2, events=1, seed=7, progress=False)


def test_a_directory_keeps_to_the_values_of_its_conditions(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(CONDITIONS["trackml"], noise_cells=(2.0,) * 9)
    monkeypatch.setitem(CONDITIONS, "trackml", changed)
    with pytest.raises(InputError, match="choose another directory"):
        simulate(written, pileup=1, events=WRITTEN, seed=7, workers=1, progress=False)


def running_in_group(group: int) -> list[int]:
    """Return the processes of a process group that have not ended."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                running.append(int(stat.parent.name))
    return running


def test_ctrl_c_leaves_whole_events_and_no_process(tmp_path: Path) -> None:
    command = (
        "from pathlib import Path; from trackserve.data.simulate import simulate\n"
        "if __name__ == '__main__':\n"
        f"    simulate(Path({str(tmp_path)!r}), pileup=1, events=500, seed=1, workers=2)\n"
    )
    script = tmp_path.parent / "many.py"
    script.write_text(command)
    process = subprocess.Popen(
        [sys.executable, script], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*-hits.csv.gz")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in stderr
    while running_in_group(process.pid):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)
    files = {path.name for path in tmp_path.iterdir()} - {"simulation.json"}
    hits = {name for name in files if name.endswith("-hits.csv.gz")}
    assert len(files) == 4 * len(hits) < 4 * 500
    assert not [name for name in files if "partial" in name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pileup": -1}, "pileup is -1; expected a number from 0"),
        ({"pileup": float("nan")}, "pileup is nan"),
        ({"noise": 1.0}, "noise is 1.0"),
        ({"seed": -3}, "seed is -3"),
        ({"dead_modules": 1.5}, "dead_modules is 1.5"),
        ({"field": "toroid"}, "field is 'toroid'; expected one of solenoid, constant"),
        ({"digitisation": "none"}, "digitisation is 'none'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**{"pileup": 1, "seed": 1, **settings})


def test_without_the_simulation_packages_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trackserve\[sim\]'"):
        simulate(tmp_path / "none", pileup=0, events=1, seed=1, progress=False)
    assert not (tmp_path / "none").exists()
