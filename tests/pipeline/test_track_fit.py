"""The fit of single tracks, against lines and helices made by other means."""

from __future__ import annotations

import numpy as np
import pytest

from fitted_tracks import COLUMNS, FALLING, FLAT, REGIONS, features_of, helix
from trackserve.errors import BundleError
from trackserve.pipeline.fit import Fits, FitSettings, Region, fit_tracks, points_of

GEV_PER_T_MM = 0.299792458e-3


def fit(tracks: list[np.ndarray], settings: FitSettings = FLAT) -> Fits:
    begin = np.cumsum([0, *map(len, tracks)])
    points = points_of(features_of(np.concatenate(tracks)), COLUMNS, settings)
    return fit_tracks(points, begin, settings)


def test_a_straight_track():
    r = np.array([32.0, 72.0, 116.0, 172.0, 500.0])
    line = np.stack([r * np.cos(0.4), r * np.sin(0.4), 3.0 + 0.7 * r], axis=1)
    found = fit([line])
    assert abs(found.curvature[0]) < 1e-7
    assert found.phi[0] == pytest.approx(0.4, abs=1e-5)
    assert found.d0[0] == pytest.approx(0, abs=1e-2)
    assert found.z0[0] == pytest.approx(3, abs=1e-2)
    assert found.cot[0] == pytest.approx(0.7, abs=1e-4)
    assert found.chi2[0] < 0.1
    assert found.hits[0] == 5


def test_a_line_beside_the_beam_line_passes_to_its_left():
    x = np.array([100.0, 200.0, 300.0, 400.0])
    found = fit([np.stack([x, np.full(4, 5.0), np.zeros(4)], axis=1)])
    assert found.d0[0] == pytest.approx(5, abs=1e-2)  # seen along +x, y is to the left
    assert found.phi[0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("settings", [FLAT, FALLING], ids=["constant field", "falling field"])
@pytest.mark.parametrize("charge", [-1, 1])
@pytest.mark.parametrize(("pt", "cot"), [(0.5, 0.1), (1.0, 1.0), (5.0, 2.0), (1.0, -1.5)])
def test_a_helix_in_the_field(settings, charge, pt, cot):
    track = helix(pt, charge, phi=1.2, cot=cot, z0=-4.0, settings=settings)
    found = fit([track], settings)
    expected = -charge * GEV_PER_T_MM * settings.field[0] / pt
    assert found.curvature[0] == pytest.approx(expected, rel=0.004)
    assert found.phi[0] == pytest.approx(1.2, abs=1e-3)
    assert found.cot[0] == pytest.approx(cot, rel=2e-3)
    assert found.z0[0] == pytest.approx(-4, abs=0.1)
    assert abs(found.d0[0]) < 0.03


def test_a_field_that_is_taken_as_constant_is_noticed():
    track = helix(1.0, 1, phi=0.0, cot=1.5, settings=FALLING)
    right, wrong = fit([track], FALLING), fit([track], FLAT)
    expected = -GEV_PER_T_MM * FALLING.field[0]
    assert abs(wrong.curvature[0] / expected - 1) > 10 * abs(right.curvature[0] / expected - 1)


def test_pulls_of_smeared_tracks_are_one():
    """Hits smeared by the resolution, without scattering: thin layers."""
    thin = tuple(Region(r.r, r.z, (*r.barrel[:2], 1e-9), (*r.disc[:2], 1e-9)) for r in REGIONS)
    settings = FitSettings((0.0,), (2.0,), thin)
    rng = np.random.default_rng(3)
    ideal = helix(2.0, -1, phi=0.3, cot=0.2)
    r = np.hypot(*ideal.T[:2])
    across, along = np.where(r <= 200, [[0.014], [0.013]], [[0.025], [0.3]])
    phi = np.arctan2(ideal[:, 1], ideal[:, 0])
    tracks = []
    for _ in range(1500):
        angle = phi + rng.normal(0, across) / r
        tracks.append(
            np.stack([r * np.cos(angle), r * np.sin(angle), ideal[:, 2] + rng.normal(0, along)], 1)
        )
    found = fit(tracks, settings)
    truth = np.array([GEV_PER_T_MM * 2 / 2.0, 0.3, 0, 0, 0.2])
    values = np.stack([found.curvature, found.phi, found.d0, found.z0, found.cot], axis=1)
    pulls = (values - truth) / np.sqrt(found.variance)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=0.12)
    assert found.reduced_chi2.mean() == pytest.approx(1, abs=0.05)


def test_the_filter_equals_weighted_least_squares():
    """Without scattering the filter is a least-squares fit: solve that by brute force."""
    thin = tuple(Region(r.r, r.z, (*r.barrel[:2], 1e-12), (*r.disc[:2], 1e-12)) for r in REGIONS)
    settings = FitSettings((0.0,), (2.0,), thin)
    rng = np.random.default_rng(5)
    for _ in range(20):
        r = np.sort(rng.uniform(30, 1000, 8))
        z = 2 + 0.3 * r + rng.normal(0, 0.2, 8)
        angle = 0.5 + rng.normal(0, 0.02, 8) / r
        found = fit([np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)], settings)
        # Nearly straight: across, u = d0 + s * slope + s^2 / 2 * k about the direction 0.5.
        x, u = r * np.cos(angle - 0.5), r * np.sin(angle - 0.5)
        weight = 1 / np.where(r <= 200, 0.014, 0.025)
        basis = np.stack([np.ones(8), x, x * x / 2], axis=1)
        d0, slope, k = np.linalg.lstsq(basis * weight[:, None], u * weight, rcond=None)[0]
        assert found.curvature[0] == pytest.approx(k, abs=3e-8 + 1e-3 * abs(k))
        assert found.phi[0] - 0.5 == pytest.approx(slope, abs=2e-6)
        assert found.d0[0] == pytest.approx(d0, abs=2e-4)


def test_turning_the_event_turns_only_phi():
    track = helix(0.7, 1, phi=2.9, cot=0.5, z0=1.0)
    turned = track.copy()
    turn = 1.0
    turned[:, 0] = track[:, 0] * np.cos(turn) - track[:, 1] * np.sin(turn)
    turned[:, 1] = track[:, 0] * np.sin(turn) + track[:, 1] * np.cos(turn)
    one, other = fit([track]), fit([turned])
    assert other.phi[0] == pytest.approx(np.angle(np.exp(1j * (one.phi[0] + turn))), abs=1e-5)
    for name in ("curvature", "d0", "z0", "cot"):
        assert getattr(other, name)[0] == pytest.approx(getattr(one, name)[0], rel=1e-3, abs=2e-3)


def test_tracks_are_fitted_alone():
    tracks = [helix(pt, 1, phi=pt, cot=0.3)[: 3 + i] for i, pt in enumerate((0.5, 1.0, 3.0, 0.8))]
    together = fit(tracks)
    for i, track in enumerate(tracks):
        alone = fit([track])
        for name in ("curvature", "phi", "d0", "z0", "cot", "chi2"):
            assert getattr(together, name)[i] == getattr(alone, name)[0]


def test_no_tracks():
    points = points_of(np.empty((0, 3), np.float32), COLUMNS, FLAT)
    assert len(fit_tracks(points, np.zeros(1, np.int64), FLAT).chi2) == 0


@pytest.mark.parametrize(
    ("field_z", "field", "regions", "reason"),
    [
        ((0.0, 1.0), (2.0,), REGIONS, "1 values at 2 places"),
        ((0.0, 0.0), (2.0, 1.0), REGIONS, "places that rise"),
        ((0.0,), (0.0,), REGIONS, "not 0 at the first"),
        ((0.0,), (2.0,), (), "expected one or more that rise"),
        ((0.0,), (2.0,), REGIONS[::-1], "expected one or more that rise"),
    ],
)
def test_settings_that_make_no_sense(field_z, field, regions, reason):
    with pytest.raises(BundleError, match=reason):
        FitSettings(field_z, field, regions)


def test_a_region_needs_positive_numbers():
    with pytest.raises(BundleError, match="positive numbers, three each"):
        Region(200.0, 500.0, (0.01, 0.0, 0.02), (0.01, 0.01, 0.02))
