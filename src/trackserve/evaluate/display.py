"""Event displays: the tracks of one event, along the beam and from the side, in one picture.

N   hits        T   tracks
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.matching import MIN_TRACK_HITS, match, particle_rows
from trackserve.evaluate.metrics import HEADLINE
from trackserve.evaluate.plots import new_figure, save
from trackserve.event import NO_TRACK, Float64, Hits, Int64, Tracks, Truth

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

FIELD = 2.0
"""Magnetic field that the momentum of a track is estimated with, T (TrackML's solenoid)."""
GEV_PER_TESLA_MM = 2.99792458e-4
CROWD = 20_000
"""From this many hits on they are drawn as dust."""
NIGHT, HAZE, PALE, WHITE = "#0b1020", "#46557a", "#9fb0d0", "#eef2fb"


def transverse_momentum(hits: Hits, tracks: Tracks) -> Float64:
    """Estimate the transverse momentum of each track from its curvature ``[T]``, GeV.

    Each track's hits are fitted in x-y by a circle through the beam line, in a field of 2 T; a
    straight track is infinitely fast. It is good enough to choose what to draw, no more.
    """
    on = tracks.labels != NO_TRACK
    label = tracks.labels[on]
    x, y = hits.x[on].astype(np.float64), hits.y[on].astype(np.float64)
    # A circle through the origin obeys x^2 + y^2 = 2 a x + 2 b y: linear least squares for (a, b).
    square = x**2 + y**2

    def per_track(values: Float64) -> Float64:
        return np.bincount(label, values, minlength=len(tracks)).astype(np.float64)

    xx, xy, yy = per_track(x * x), per_track(x * y), per_track(y * y)
    xs, ys = per_track(x * square), per_track(y * square)
    determinant = xx * yy - xy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (xs * yy - ys * xy) / (2 * determinant)
        b = (ys * xx - xs * xy) / (2 * determinant)
        radius = np.hypot(a, b)
    momentum: Float64 = GEV_PER_TESLA_MM * FIELD * np.nan_to_num(radius, nan=np.inf)
    return momentum


def choose_tracks(hits: Hits, tracks: Tracks, limit: int) -> tuple[Int64, float]:
    """Choose what to draw: the ``limit`` tracks of highest estimated momentum, with at least 3 hits.

    Returns their labels and the lowest momentum among them (GeV; 0 where all tracks are drawn).
    """
    size = np.bincount(tracks.labels[tracks.labels != NO_TRACK], minlength=len(tracks))
    proper = np.flatnonzero(size >= MIN_TRACK_HITS)
    if len(proper) <= limit:
        return proper, 0.0
    momentum = transverse_momentum(hits, tracks)[proper]
    fastest = np.argsort(-momentum, kind="stable")[:limit]
    return np.sort(proper[fastest]), float(momentum[fastest[-1]])


def draw_event(
    hits: Hits,
    tracks: Tracks,
    path: Path,
    *,
    truth: Truth | None = None,
    title: str = "",
    limit: int = 400,
) -> Path:
    """Draw the hits and tracks of an event in x-y and r-z and write the picture as PNG.

    Of more than ``limit`` tracks those of highest estimated momentum are drawn, so that the picture
    stays legible. With ``truth`` the target particles that were not found are drawn dotted, and the
    efficiency is stated. Raises InputError where hits and labels differ in number, and
    MissingDependencyError without matplotlib (``trackserve[plot]``).
    """
    if len(hits) != len(tracks.labels):
        message = f"{len(tracks.labels)} labels for {len(hits)} hits; expected one for each hit"
        raise InputError(message)
    figure = new_figure(15, 7.4)
    figure.set_facecolor(NIGHT)
    across, along = figure.subplots(1, 2, width_ratios=[1, 1.3])
    x, y, z = (column.astype(np.float64) for column in (hits.x, hits.y, hits.z))
    chosen, slowest = choose_tracks(hits, tracks, limit)
    paths = _paths(hits, tracks.labels, chosen)
    lost = [] if truth is None else _lost_paths(hits, tracks, truth)
    # r takes the sign of y: what goes up in one view goes up in the other. All of a track takes
    # the sign of its mean y, or crossing y = 0 would tear it apart.
    r = np.where(y < 0, -1, 1) * np.hypot(x, y)
    for rows in [*paths, *lost]:
        r[rows] = (-1 if y[rows].mean() < 0 else 1) * np.abs(r[rows])

    for axes, u, v, name_u, name_v in (
        (across, x, y, "x [mm]", "y [mm]"),
        (along, z, r, "z [mm]", "r [mm], with the sign of y"),
    ):
        _style(axes, name_u, name_v)
        crowded = len(hits) > CROWD
        axes.scatter(u, v, s=0.5 if crowded else 2.5, c=HAZE, alpha=0.45 if crowded else 0.8, lw=0)
        _draw_lines(
            axes, [np.stack([u[rows], v[rows]], axis=1) for rows in paths], _hues(x, y, paths)
        )
        _draw_lost(axes, [np.stack([u[rows], v[rows]], axis=1) for rows in lost])
    across.set_aspect("equal")

    drawn = f"{len(hits):,} hits, {len(tracks):,} tracks"
    if slowest:
        drawn += f"; drawn are the {limit} of highest momentum (pT above about {slowest:.1f} GeV)"
    if truth is not None:
        drawn += "; " + _verdict(tracks, truth)
    figure.suptitle(f"{title}\n" if title else "", color=WHITE, fontsize=15, x=0.02, ha="left")
    figure.text(0.02, 0.94, drawn, color=PALE, fontsize=10.5)
    return save(figure, path, dpi=140)


def _paths(hits: Hits, labels: Int64, chosen: Int64) -> list[Int64]:
    """Return the rows of each chosen track's hits, from the origin outwards."""
    rows = np.flatnonzero(np.isin(labels, chosen))
    distance = np.hypot(np.hypot(hits.x[rows], hits.y[rows]), hits.z[rows])
    rows = rows[np.lexsort((distance, labels[rows]))]
    return np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1) if len(rows) else []


def _hues(x: Float64, y: Float64, paths: list[Int64]) -> Float64:
    """Return the azimuth of each track's outermost hit as a place on the colour wheel in [0, 1)."""
    last = np.array([rows[-1] for rows in paths], np.int64)
    return np.arctan2(y[last], x[last]) / (2 * np.pi) % 1


def _draw_lines(axes: Axes, lines: list[Float64], hues: Float64) -> None:
    """Draw each track ``[n, 2]`` in its colour: a faint glow, and a fine line on it."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import hsv_to_rgb

    colours = hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.6), np.ones_like(hues)], axis=1))
    fine = float(np.clip(12 / np.sqrt(max(len(lines), 1)), 0.55, 1.4))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=4 * fine, alpha=0.10))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=fine, alpha=0.9))


def _draw_lost(axes: Axes, lines: list[Float64]) -> None:
    """Draw the particles ``[n, 2]`` that were not found, dotted."""
    from matplotlib.collections import LineCollection

    axes.add_collection(
        LineCollection(lines, colors=WHITE, linewidths=0.9, linestyles=(0, (1.2, 1.6)))
    )


def _lost_paths(hits: Hits, tracks: Tracks, truth: Truth) -> list[Int64]:
    """Return the rows of the hits of each target without a match, from the origin outwards."""
    matches = match(tracks.labels, truth)
    lost = HEADLINE.select(truth, matches.particle_hits) & ~matches.particle_matched
    return _paths(hits, particle_rows(truth), np.flatnonzero(lost))


def _verdict(tracks: Tracks, truth: Truth) -> str:
    matches = match(tracks.labels, truth)
    targets = HEADLINE.select(truth, matches.particle_hits)
    found = int((targets & matches.particle_matched).sum())
    return f"{found:,} of {int(targets.sum()):,} particles above 1 GeV found, the others dotted"


def _style(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_facecolor(NIGHT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(color=HAZE, labelcolor=PALE, labelsize=9)
    axes.set_xlabel(horizontal, color=PALE)
    axes.set_ylabel(vertical, color=PALE)
