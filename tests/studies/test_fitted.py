"""What the study of the fit compares with, and how wide it calls a distribution."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from studies.physics.fitted import (
    FITTED,
    TABLES,
    calibration,
    resolution,
    true_parameters,
    width,
)
from tools.documents import measured


def test_the_closest_approach_of_a_particle_that_starts_beside_the_beam_line():
    # Along y at x = 1 mm: the beam line is to its left, so it passes to the right; it started 2 mm past
    # the closest approach, where it was 2 mm times cot theta lower.
    particle = SimpleNamespace(
        px=np.zeros(1),
        py=np.ones(1),
        pt=np.ones(1),
        eta=np.arcsinh(np.array([0.5])),
        vx=np.ones(1),
        vy=np.array([2.0]),
        vz=np.array([10.0]),
    )
    true = true_parameters(particle)
    assert true["d0"] == pytest.approx([-1])
    assert true["z0"] == pytest.approx([9])
    assert true["phi"] == pytest.approx([np.pi / 2])


def test_the_width_of_a_normal_distribution_is_its_sigma():
    values = np.random.default_rng(1).normal(5, 3, 200_000)
    assert width(values) == pytest.approx(3, rel=0.02)
    assert width(values[:5]) is None


def test_calibration_counts_right_tracks_by_quality():
    rows = calibration(np.array([0.05, 0.95, 1.0, 0.91]), np.array([False, True, True, False]))
    assert [row["tracks"] for row in rows] == [1, *[0] * 8, 3]
    assert (rows[9]["right"], rows[0]["right"], rows[5]["right"]) == (pytest.approx(2 / 3), 0, None)


def test_pulls_are_residuals_over_errors():
    columns = {"true_pt": np.full(500, 0.3), "true_eta": np.full(500, -1.5)}
    columns["right_charge"] = np.ones(500)
    residual = np.random.default_rng(2).normal(0, 0.01, 500)
    for name in ("pt", "phi", "eta", "d0", "z0"):
        columns |= {name: residual, f"{name}_error": np.full(500, 0.02)}
    (row,) = [row for row in resolution(columns) if row["tracks"]]
    assert row["bin"] == {"pt": [0.2, 0.5], "eta": [1.0, 2.0]}
    assert row["d0_pull"] == pytest.approx(row["d0"] / 0.02)
    assert row["pt"] == pytest.approx(row["d0"] / 0.3)  # relative


@pytest.mark.parametrize("table", TABLES.values())
def test_tables_are_made_of_the_record(table):
    lines = table(measured(FITTED)).splitlines()
    assert len(lines) >= 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
