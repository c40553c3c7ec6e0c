"""The usual plots of an evaluation: efficiencies in bins, edges by stage, where targets are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import needs_extra
from trackserve.evaluate.metrics import DENSITY_RADIUS, HEADLINE, LOW_PT, STRICT
from trackserve.files import whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trackserve.evaluate.intervals import Ratio
    from trackserve.evaluate.metrics import Binned, TargetSet
    from trackserve.evaluate.report import Evaluation

INK, QUIET, FAINT = "#1f2933", "#7b8794", "#e4e7eb"
# Okabe and Ito's colours, distinguishable for colour-blind readers.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
COLOURS = {HEADLINE.name: BLUE, STRICT.name: ORANGE, LOW_PT.name: GREEN}
LABELS = {
    HEADLINE.name: r"$p_\mathrm{T}$ > 1 GeV, |$\eta$| < 4, $\geq$ 3 hits",
    STRICT.name: r"$p_\mathrm{T}$ > 1 GeV, |$\eta$| < 3, $\geq$ 6 hits",
    LOW_PT.name: r"0.5 < $p_\mathrm{T}$ < 1 GeV, |$\eta$| < 4, $\geq$ 3 hits",
}
PT_TICKS = [0.5, 1, 2, 5, 10, 20, 50]
AXES = {
    "pt": r"Transverse momentum $p_\mathrm{T}$ [GeV]",
    "eta": r"Pseudorapidity $\eta$",
    "phi": r"Azimuth $\phi$ [rad]",
    "production_radius": "Production radius [mm]",
    "hits": "Hits of the particle",
    "density": f"Other hits within {DENSITY_RADIUS:g} mm, mean over the particle's hits",
}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, drawn without any display.

    Raises MissingDependencyError without matplotlib (``trackserve[plot]``).
    """
    with needs_extra("plot", "a plot"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, *, dpi: int = 160) -> Path:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        figure.savefig(beside, format="png", dpi=dpi)
    return path


def write_plots(
    evaluation: Evaluation,
    directory: Path,
    *,
    peers: Mapping[str, Evaluation] | None = None,
    dpi: int = 160,
) -> list[Path]:
    """Write every plot of an evaluation into a folder and return the files.

    These are ``efficiency_<variable>.png`` for each binned variable and, where the edges after each
    stage are known, ``stages.png`` and ``losses.png``. The strict efficiencies of ``peers``, by
    their names, are drawn beside.
    """
    paths = []
    for variable in AXES:
        figure = new_figure(6.4, 4.4)
        draw_efficiency(figure.add_subplot(), evaluation, variable, peers)
        paths.append(save(figure, directory / f"efficiency_{variable}.png", dpi=dpi))
    if evaluation.stages:
        figure = new_figure(9.6, 3.4)
        draw_stages(figure, evaluation)
        paths.append(save(figure, directory / "stages.png", dpi=dpi))
        figure = new_figure(6.4, 3.4)
        draw_losses(figure.add_subplot(), evaluation)
        paths.append(save(figure, directory / "losses.png", dpi=dpi))
    return paths


def draw_efficiency(
    axes: Axes,
    evaluation: Evaluation,
    variable: str,
    peers: Mapping[str, Evaluation] | None = None,
) -> None:
    """Draw the double-majority efficiency against a variable, over the number of targets.

    Of ``peers``, other track finders by their names, that of the strict set is drawn beside.
    """
    _style(axes)
    shown = [HEADLINE, STRICT, *([LOW_PT] if variable == "pt" else [])]
    lowest = 1.0
    for targets in shown:
        counts = evaluation.targets[targets.name]
        if counts.efficiency.total:
            label = f"{LABELS[targets.name]}: {_percent(counts.efficiency)}"
            lowest = min(lowest, _draw_binned(axes, counts.bins[variable], targets, label))
    for name, peer in (peers or {}).items():
        counts = peer.targets[STRICT.name]
        if counts.efficiency.total:
            label = f"{name}, {LABELS[STRICT.name]}: {_percent(counts.efficiency)}"
            binned = counts.bins[variable]
            lowest = min(lowest, _draw_binned(axes, binned, STRICT, label, colour=QUIET))
    axes.set_xlabel(AXES[variable])
    axes.set_ylabel("Efficiency (double majority)")
    bottom = max(1 - 1.5 * max(1 - lowest, 0.03), 0)
    axes.set_ylim(bottom, 1 + 0.04 * (1 - bottom))
    axes.axhline(1, color=QUIET, linewidth=0.8, zorder=1)
    headline = evaluation.targets[HEADLINE.name].bins[variable]
    if variable == "pt":
        axes.set_xscale("log")
        axes.set_xticks(PT_TICKS, [f"{tick:g}" for tick in PT_TICKS])
    elif variable in {"production_radius", "density"}:
        axes.set_xscale("symlog", linthresh=headline.edges[1])
        axes.set_xticks(headline.edges, [f"{edge:g}" for edge in headline.edges])
        axes.set_xlim(headline.edges[0], headline.edges[-1])
    elif variable == "hits":
        axes.set_xticks(range(4, 21, 2))
    axes.minorticks_off()
    _draw_population(axes, headline)
    if headline.total.any():
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1),
            frameon=False,
            fontsize=8.5,
            labelspacing=0.3,
        )
    axes.set_title(_subject(evaluation), loc="right", fontsize=8.5, color=QUIET)


def draw_stages(figure: Figure, evaluation: Evaluation) -> None:
    """Draw edge efficiency, edge purity and number of edges after each stage, side by side."""
    stages = evaluation.stages
    place = np.arange(len(stages))
    panels = {
        "Edge efficiency": [counts.efficiency for counts in stages.values()],
        "Edge purity": [counts.purity for counts in stages.values()],
    }
    axes_row = figure.subplots(1, 3)
    for axes, (title, ratios) in zip(axes_row, panels.items(), strict=False):
        values = np.array([ratio.value for ratio in ratios])
        axes.plot(place, values, "--", color=QUIET, linewidth=0.8)
        axes.vlines(place, [r.low for r in ratios], [r.high for r in ratios], colors=BLUE)
        axes.plot(place, values, "o", color=BLUE, markersize=6)
        for x, value in zip(place, values, strict=True):
            axes.annotate(
                f"{100 * value:.2f} %", (x, value), (0, 10), textcoords="offset points",
                ha="center", fontsize=8.5, color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        axes.set_title(title, fontsize=10, color=INK)
        axes.margins(x=0.22, y=0.35)
        if title == "Edge purity":
            axes.set_ylim(0, 1.15)
    edges = [counts.edges / evaluation.events for counts in stages.values()]
    axes_row[2].bar(place, edges, width=0.55, color=BLUE)
    for x, count in zip(place, edges, strict=True):
        axes_row[2].annotate(
            f"{count:,.0f}", (x, count), (0, 4), textcoords="offset points",
            ha="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    if any(edges):
        axes_row[2].set_yscale("log")
    axes_row[2].margins(x=0.15, y=0.2)
    axes_row[2].set_title("Edges per event", fontsize=10, color=INK)
    for axes in axes_row:
        _style(axes)
        axes.set_xticks(place, list(stages))
    figure.suptitle(_subject(evaluation), fontsize=8.5, color=QUIET, x=0.99, ha="right")


def draw_losses(axes: Axes, evaluation: Evaluation) -> None:
    """Draw what the lost targets of the headline and the strict set died of, in percent of targets."""
    _style(axes)
    reasons = list(evaluation.targets[HEADLINE.name].losses)
    place = np.arange(len(reasons))[::-1]
    for shift, targets in ((0.19, HEADLINE), (-0.19, STRICT)):
        counts = evaluation.targets[targets.name]
        total = max(counts.efficiency.total, 1)
        lost = np.array([counts.losses[reason] for reason in reasons])
        bars = axes.barh(
            place + shift, 100 * lost / total, height=0.34, color=COLOURS[targets.name],
            label=LABELS[targets.name],
        )  # fmt: skip
        axes.bar_label(bars, [f"{n:,}" for n in lost], padding=3, fontsize=8.5, color=INK)
    axes.set_yticks(place, [reason.replace("_", " ") for reason in reasons])
    axes.set_xlabel("Lost targets [% of targets]")
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, fontsize=8.5)
    axes.set_title(_subject(evaluation), loc="right", fontsize=8.5, color=QUIET)


def _draw_binned(
    axes: Axes, binned: Binned, targets: TargetSet, label: str, colour: str | None = None
) -> float:
    """Draw points with bars of bin width and interval; return the lowest point."""
    full = binned.total > 0
    value, (low, high) = binned.value[full], binned.interval
    left, right = binned.edges[:-1][full], binned.edges[1:][full]
    logarithmic = binned.edges[0] > 0 and np.ptp(np.diff(np.log(binned.edges))) < 1e-6
    # Off the middle to either side, so that one set does not hide the other.
    place = 0.5 if colour or targets is LOW_PT else 0.56 if targets is STRICT else 0.44
    middle = left ** (1 - place) * right**place if logarithmic else left + place * (right - left)
    colour = colour or COLOURS[targets.name]
    axes.hlines(value, left, right, colors=colour, linewidths=1, alpha=0.45)
    axes.vlines(middle, low[full], high[full], colors=colour, linewidths=1.3)
    axes.plot(
        middle,
        value,
        "s" if targets is STRICT else "o",
        color=colour,
        markerfacecolor="white" if targets is STRICT else colour,
        markersize=4.5,
        label=label,
        zorder=3,
    )
    return float(value.min())


def _draw_population(axes: Axes, binned: Binned) -> None:
    """Fill the background with the number of targets in each bin, on no scale of its own."""
    back = axes.twinx()
    back.stairs(binned.total, binned.edges, fill=True, color=FAINT)
    back.set_ylim(0, 3.2 * max(int(binned.total.max()), 1))
    back.axis("off")
    axes.set_zorder(back.get_zorder() + 1)
    axes.patch.set_visible(False)


def _style(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9, color=QUIET)
    axes.grid(visible=True, axis="both", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)


def _percent(ratio: Ratio) -> str:
    return f"{100 * ratio.value:.2f} %"


def _subject(evaluation: Evaluation) -> str:
    hits = evaluation.hits / evaluation.events
    plural = "s" if evaluation.events > 1 else ""
    return f"{evaluation.events} event{plural}, {hits:,.0f} hits each"
