from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("acts")

from trackserve.data.conditions import TRACKML
from trackserve.data.detector import Surfaces, build_detector, read_surfaces
from trackserve.data.digitise import digitise
from trackserve.data.transport import Crossings

PLAIN = replace(TRACKML, spread_u=(0.0,) * 9, spread_v=(0.0,) * 9, blur_u=(0.0,) * 9)


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return read_surfaces(build_detector())


def crossing(
    surfaces: Surfaces, row: int, local: list[list[float]], slope: list[float]
) -> Crossings:
    """Make crossings of one module at local u, v with slopes du/dw and dv/dw."""
    rows = np.full(len(local), row)
    direction = surfaces.rotation[row] @ np.array([*slope, 1.0])
    return Crossings(
        particle_id=np.arange(1, len(local) + 1),
        surface=rows,
        order=np.zeros(len(local), dtype=np.int64),
        position=surfaces.to_global(rows, np.array(local)),
        momentum=np.tile(direction, (len(local), 1)),
    )


def at_cell(surfaces: Surfaces, row: int, channel: tuple[int, int]) -> list[float]:
    return surfaces.at_channels(np.array([row]), np.array([channel]))[0].tolist()


def test_cells_follow_the_path(surfaces: Surfaces) -> None:
    row = int(np.flatnonzero(surfaces.volume_id == 8)[0])
    pitch = surfaces.pitch[row]
    slope = 4 * pitch[1] / TRACKML.depth[1]
    found = digitise(
        crossing(surfaces, row, [at_cell(surfaces, row, (50, 200))], [0.0, slope]),
        surfaces,
        PLAIN,
        np.random.default_rng(0),
    )
    assert found.channel.tolist() == [[50, v] for v in range(198, 203)]
    # The outer two cells have half the path of the inner ones.
    length = TRACKML.depth[1] * np.hypot(1, slope) / 4
    assert found.value == pytest.approx(length * np.array([0.5, 1, 1, 1, 0.5]), abs=0.05)
    assert found.local[0] == pytest.approx(at_cell(surfaces, row, (50, 200)), abs=0.02)


def test_only_neighbours_merge(surfaces: Surfaces) -> None:
    row = int(np.flatnonzero(surfaces.volume_id == 8)[0])
    cells = [(10, 10), (11, 11), (13, 11), (40, 40), (40, 40)]
    local = [at_cell(surfaces, row, cell) for cell in cells]
    crossings = crossing(surfaces, row, local, [0.0, 0.0])
    found = digitise(crossings, surfaces, PLAIN, np.random.default_rng(0))
    links = set(zip(found.measurement.tolist(), found.crossing.tolist(), strict=True))
    groups = [{c for m, c in links if m == each} for each in range(len(found.surface))]
    assert sorted(map(sorted, groups)) == [[0, 1], [2], [3, 4]]
    assert found.value.sum() == pytest.approx(5 * TRACKML.depth[1], abs=0.1)


def test_charge_spreads_over_more_cells(surfaces: Surfaces) -> None:
    random = np.random.default_rng(0)
    row = int(np.flatnonzero(surfaces.volume_id == 13)[0])
    u = random.uniform(-10, 10, 400)
    local = [[float(each), 0.1] for each in u]
    crossings = crossing(surfaces, row, local, [0.0, 0.0])
    few, more = (
        len(digitise(crossings.take(np.array([i])), surfaces, each, random).value)
        for each in (PLAIN, replace(PLAIN, spread_u=(0.2,) * 9))
        for i in [3]
    )
    assert few == 1
    assert more >= 3


def test_no_crossings_leave_nothing(surfaces: Surfaces) -> None:
    nothing = crossing(surfaces, 0, [[0.0, 0.0]], [0.0, 0.0]).take(np.array([], dtype=np.int64))
    found = digitise(nothing, surfaces, TRACKML, np.random.default_rng(0))
    assert len(found.surface) == len(found.value) == len(found.crossing) == 0
