"""A small detector and tracks in it, made without the code that is tested."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from trackserve.event import ScoredGraph
from trackserve.pipeline.components import TrackBuilder
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.fit import FitSettings, Region
from trackserve.pipeline.quality import QualityModel
from trackserve.pipeline.tracks import TrackStage

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, float(np.pi), 1000.0), {})
REGIONS = (
    Region(200.0, 550.0, (0.014, 0.013, 0.012), (0.016, 0.013, 0.016)),
    Region(2000.0, 1150.0, (0.025, 0.3, 0.024), (0.022, 0.36, 0.02)),
)
FLAT = FitSettings((0.0,), (2.0,), REGIONS)
FALLING = FitSettings((0.0, 500.0, 1500.0, 3000.0), (2.0, 1.9, 1.2, 0.0), REGIONS)
QUALITY = QualityModel(-4.0, 2.1, -0.3, 2.3, -8.5, -0.2, 0.02, -0.1, -0.3, 0.7, 0.4, 1.8)
RADII = (32.0, 72.0, 116.0, 172.0, 260.0, 360.0, 500.0, 660.0, 820.0, 1020.0)


def helix(
    pt: float, charge: int, phi: float, cot: float, *, z0: float = 0.0, settings: FitSettings = FLAT
) -> np.ndarray:
    """Follow a particle from the beam line through the field in steps of 0.1 mm to the radii; ``[N, 3]``."""
    step, x, y, z, angle = 0.1, 0.0, 0.0, z0, phi
    curvature = -charge * 0.299792458e-3 / pt
    hits: list[tuple[float, float, float]] = []
    field = dict(zip(settings.field_z, settings.field, strict=True))
    for _ in range(30_000):
        b = np.interp(abs(z + cot * step / 2), list(field), list(field.values()))
        middle = angle + curvature * b * step / 2
        to_x, to_y = x + step * np.cos(middle), y + step * np.sin(middle)
        before, after = np.hypot(x, y), np.hypot(to_x, to_y)
        if len(hits) < len(RADII) and before < RADII[len(hits)] <= after:
            part = (RADII[len(hits)] - before) / (after - before)
            hits.append((x + part * (to_x - x), y + part * (to_y - y), z + part * cot * step))
        x, y, z, angle = to_x, to_y, z + cot * step, angle + curvature * b * step
        if len(hits) == len(RADII):
            break
    return np.array(hits)


def features_of(xyz: np.ndarray) -> np.ndarray:
    """Return the features ``[N, 3]`` of hits at x, y, z ``[N, 3]`` (mm)."""
    x, y, z = xyz.T
    return np.stack([np.hypot(x, y) / 1000, np.arctan2(y, x) / np.pi, z / 1000], axis=1).astype(
        np.float32
    )


def stage(settings: FitSettings = FLAT, **builder: float) -> TrackStage:
    return TrackStage(COLUMNS, TrackBuilder("walk", 0.1, 3, **builder), settings, QUALITY)


def event(
    tracks: list[np.ndarray], broken: dict[int, int] | None = None, noise: int = 0, seed: int = 0
) -> tuple[ScoredGraph, np.ndarray]:
    """Return the graph of tracks in canonical order and the track of each hit.

    Hits follow each other by edges of score 0.9; ``broken`` drops the edge after this hit of a track.
    ``noise`` hits are joined to random others by edges of score 0.2.
    """
    rng = np.random.default_rng(seed)
    other = rng.uniform(-600, 600, (noise, 3))
    xyz = np.concatenate([*tracks, other])
    owner = np.concatenate(
        [*(np.full(len(t), i) for i, t in enumerate(tracks)), np.full(noise, -1)]
    ).astype(np.int64)
    order = np.argsort((xyz**2).sum(axis=1), kind="stable")
    xyz, owner = xyz[order], owner[order]
    edges = []
    for i in range(len(tracks)):
        rows = np.flatnonzero(owner == i)
        for place, pair in enumerate(pairwise(rows)):
            if (broken or {}).get(i) != place:
                edges.append((*pair, 0.9))
    for row in np.flatnonzero(owner < 0):
        far = int(rng.integers(len(xyz)))
        if far != row and (min(row, far), max(row, far)) not in {e[:2] for e in edges}:
            edges.append((min(row, far), max(row, far), 0.2))
    edges = sorted({(int(a), int(b)): s for a, b, s in edges}.items())
    ends = np.array([pair for pair, _ in edges], np.int64).reshape(-1, 2).T.copy()
    scores = np.array([score for _, score in edges], np.float32)
    return ScoredGraph(features_of(xyz), ends, scores), owner


def crowded(beside: int) -> tuple[ScoredGraph, np.ndarray]:
    """A track whose last hit has no edge, and hits near the way there, 2 mm aside; as :func:`event`."""
    particle = helix(20.0, 1, phi=0.2, cot=0.4)
    gap = particle[-1] - particle[-2]
    aside = 2.0 * np.array([-gap[1], gap[0], 0.0]) / np.hypot(gap[0], gap[1])
    crowd = particle[-2] + np.linspace(0.05, 0.95, beside)[:, None] * gap + aside
    return event([particle[:-1], particle[-1:], *crowd[:, None]])
