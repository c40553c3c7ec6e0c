"""Pictures of real and simulated events side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.evaluate.plots import BLUE, INK, ORANGE, new_figure, save
from trackserve.evaluate.realism import (
    HARD_PT,
    PRIMARY_RADIUS,
    VOLUMES,
    hits_of_hard_primaries,
)

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from trackserve.evaluate.realism import Sample


def draw_realism(real: Sample, simulated: Sample, path: Path) -> Path:
    """Draw six distributions of both samples, an event each, and write them as PNG."""
    figure = new_figure(11, 6.4)
    axes = figure.subplots(2, 3).ravel()
    pt = np.geomspace(0.1, 20, 50)
    _both(axes[0], pt, real, simulated, lambda s: s.pt[s.hits > 0])
    axes[0].set(xscale="log", yscale="log", xlabel="pT of particles with hits [GeV]")
    _both(axes[1], np.arange(0, 4.6, 0.1), real, simulated, lambda s: s.eta[s.hits > 0])
    axes[1].set(xlabel=r"|$\eta$| of particles with hits")
    for sample, colour, name in ((real, INK, "real"), (simulated, BLUE, "simulated")):
        counts = hits_of_hard_primaries(sample) / sample.events
        axes[2].stairs(counts, np.arange(len(counts) + 1) - 0.5, color=colour, label=name)
    axes[2].set(xlabel=f"hits of a primary above {HARD_PT:g} GeV", yscale="log")
    radii = np.geomspace(PRIMARY_RADIUS, 1100, 70)
    _both(axes[3], radii, real, simulated, lambda s: s.radius[s.hits > 0])
    axes[3].set(xscale="log", xlabel="production radius [mm]")
    heights = np.arange(-3000, 3001, 50)
    _both(
        axes[4],
        heights,
        real,
        simulated,
        lambda s: s.vertex[(s.radius > PRIMARY_RADIUS) & (s.hits > 0), 2],
    )
    axes[4].set(xlabel="z of displaced vertices [mm]", yscale="log")
    place = np.arange(len(VOLUMES))
    for sample, colour, shift in ((real, INK, -0.2), (simulated, ORANGE, 0.2)):
        share = sample.hits_of_volume / sample.hits_of_volume.sum()
        axes[5].bar(place + shift, share, 0.4, color=colour)
    axes[5].set(xlabel="share of hits by volume (black: real)")
    axes[5].set_xticks(place, [str(volume) for volume in VOLUMES])
    for each in axes[:5]:
        each.set_ylabel("an event")
    axes[2].legend(frameon=False)
    return save(figure, path)


def _both(axes: Axes, edges: Any, real: Sample, simulated: Sample, values: Any) -> None:
    for sample, colour in ((real, INK), (simulated, BLUE)):
        counts = np.histogram(values(sample), edges)[0] / sample.events
        axes.stairs(counts, edges, color=colour)
