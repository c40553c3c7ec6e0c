from __future__ import annotations

import numpy as np
import pytest

from trackserve.data.field import (
    COIL_HALF_LENGTH,
    COIL_RADIUS,
    FIELD_AT_CENTRE,
    solenoid_field,
    turning_field,
)

MEASURED = {
    100: {100: 2.00, 350: 1.97, 650: 1.94, 950: 1.83, 1200: 1.71, 1400: 1.53},
    350: {100: 2.00, 650: 1.94, 1200: 1.78, 1400: 1.68, 1600: 1.37, 2000: 1.01, 2400: 0.39},
    750: {100: 2.00, 650: 1.96, 1200: 1.85, 1400: 1.73, 1600: 1.51, 2000: 1.03, 2400: 0.11},
}
"""Field in T by r and |z| in mm, from how truth momenta turn between hits of real events."""


def test_particles_turn_as_in_real_events() -> None:
    for r, row in MEASURED.items():
        for z, measured in row.items():
            tolerance = 0.14 if z < 1700 else 0.2
            assert float(turning_field(r, z)) == pytest.approx(measured, abs=tolerance)
            assert float(turning_field(r, -z)) == pytest.approx(float(turning_field(r, z)))


def test_on_the_axis_it_is_the_textbook_formula() -> None:
    z = np.linspace(-4000, 4000, 17)
    br, bz = solenoid_field(np.zeros_like(z), z)

    def end(distance: np.ndarray) -> np.ndarray:
        return distance / np.hypot(distance, COIL_RADIUS)

    expected = end(z + COIL_HALF_LENGTH) - end(z - COIL_HALF_LENGTH)
    expected *= FIELD_AT_CENTRE / (2 * end(np.array(COIL_HALF_LENGTH)))
    assert bz == pytest.approx(expected, rel=1e-6)
    assert np.abs(br).max() < 1e-12
    assert float(solenoid_field(0, 0)[1]) == pytest.approx(FIELD_AT_CENTRE)


@pytest.mark.parametrize("r", [50.0, 400.0, 900.0, 1100.0])
@pytest.mark.parametrize("z", [-2800.0, 0.0, 700.0, 2000.0, 2650.0, 3500.0])
def test_it_has_neither_divergence_nor_curl(r: float, z: float) -> None:
    h = 0.5
    (br_in, br_out), (bz_in, bz_out) = solenoid_field([r - h, r + h], [z, z])
    (br_low, br_high), (bz_low, bz_high) = solenoid_field([r, r], [z - h, z + h])
    divergence = ((r + h) * br_out - (r - h) * br_in) / (2 * h * r) + (bz_high - bz_low) / (2 * h)
    curl = (br_high - br_low) / (2 * h) - (bz_out - bz_in) / (2 * h)
    assert abs(divergence) < 1e-7
    assert abs(curl) < 1e-7


def test_it_keeps_shapes_and_falls_off_outside() -> None:
    r, z = np.meshgrid([0.0, 500.0, 1000.0], [0.0, 3000.0, 10000.0, 1e5], indexing="ij")
    br, bz = solenoid_field(r, z)
    assert br.shape == bz.shape == r.shape
    assert np.isfinite(br).all()
    assert (np.diff(bz[0]) < 0).all()
    assert np.abs(bz[:, -1]).max() < 1e-4


def test_the_map_that_acts_uses_is_this_field() -> None:
    acts = pytest.importorskip("acts")
    from trackserve.data.detector import build_field

    field = build_field("solenoid", 0.5)
    cache = field.makeCache(acts.MagneticFieldContext())
    tesla = acts.UnitConstants.T
    for x, y, z in ((0, 300, 1200), (600, -400, -2500), (10, 0, 40)):
        found = field.getField(acts.Vector3(x, y, z), cache)
        br, bz = (0.5 * float(each) for each in solenoid_field(np.hypot(x, y), z))
        assert found[2] / tesla == pytest.approx(bz, abs=2e-3)
        radial = (found[0] * x + found[1] * y) / np.hypot(x, y) / tesla
        assert radial == pytest.approx(br, abs=2e-3)
