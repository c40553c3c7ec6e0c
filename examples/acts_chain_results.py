"""What ACTS' performance writers found of the chains of acts_full_chain.py: numbers and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from trackserve.evaluate.intervals import wilson

if TYPE_CHECKING:
    from pathlib import Path

    from acts_full_chain import Chain

CHAINS = ("service", "ckf", "combined")


def half_width(histogram: Any) -> float:
    """Return half of the range that holds the central 68.27 % of a histogram's entries."""
    counts = np.asarray(histogram.histogram.values())
    edges = np.asarray(histogram.histogram.axis(0).edges)
    if counts.sum() == 0:
        return float("nan")
    share = np.append(0.0, np.cumsum(counts)) / counts.sum()
    low, high = np.interp([0.15865, 0.84135], share, edges)
    return float(high - low) / 2


def mean_of(histogram: Any) -> float:
    """Return the mean of a histogram's entries."""
    counts = np.asarray(histogram.histogram.values())
    edges = np.asarray(histogram.histogram.axis(0).edges)
    return float(np.average((edges[1:] + edges[:-1]) / 2, weights=counts)) if counts.sum() else 0.0


def judge(chain: Chain, name: str) -> dict[str, Any]:
    """Return what ACTS' writers found of a chain."""
    stats = chain.finders[name].stats()
    counts = {
        "targets": stats["nTotalParticles"],
        "found": stats["nTotalMatchedParticles"],
        "tracks": stats["nTotalTracks"],
        "fakes": stats["nTotalFakeTracks"],
        "duplicates": stats["nTotalDuplicateTracks"],
    }
    histograms = chain.fitters[name].histograms()
    parameters = ("d0", "z0", "phi", "theta", "qop", "qopt_rel")
    return {
        **counts,
        "efficiency": counts["found"] / max(counts["targets"], 1),
        "efficiency_interval": [float(end) for end in wilson(counts["found"], counts["targets"])],
        "fake_rate": counts["fakes"] / max(counts["tracks"], 1),
        "duplicate_rate": counts["duplicates"] / max(counts["tracks"], 1),
        "resolution": {p: half_width(histograms[f"res_{p}"]) for p in parameters},
        "pull": {
            p: {
                "mean": mean_of(histograms[f"pull_{p}"]),
                "width": half_width(histograms[f"pull_{p}"]),
            }
            for p in parameters
            if f"pull_{p}" in histograms
        },
    }


def draw(chain: Chain, folder: Path) -> None:
    """Draw efficiency, fakes, residuals and pulls of the three chains over each other."""
    figure, axes = plt.subplots(2, 4, figsize=(17, 8), layout="constrained")
    rates = (
        ("trackeff_vs_eta", "efficiency", "pseudorapidity"),
        ("trackeff_vs_pT", "efficiency", "transverse momentum (GeV)"),
        ("fakeRatio_vs_eta", "fake rate", "pseudorapidity"),
    )
    for name in CHAINS:
        found = chain.finders[name].histograms()
        for axis, (key, label, below) in zip(axes.flat, rates, strict=False):
            total = np.asarray(found[key].total.values())
            passed = np.asarray(found[key].accepted.values())
            edges = np.asarray(found[key].total.axis(0).edges)
            kept = total > 0
            centres = (edges[1:] + edges[:-1]) / 2
            axis.plot(centres[kept], passed[kept] / total[kept], ".-", label=name)
            axis.set(xlabel=below, ylabel=label)
        fitted = chain.fitters[name].histograms()
        residuals = (
            ("res_d0", "residual of d0 (mm)"),
            ("res_z0", "residual of z0 (mm)"),
            ("pull_d0", "pull of d0"),
            ("pull_z0", "pull of z0"),
            ("pull_qop", "pull of q/p"),
        )
        for axis, (key, below) in zip(axes.flat[3:], residuals, strict=True):
            edges = np.asarray(fitted[key].histogram.axis(0).edges)
            axis.stairs(np.asarray(fitted[key].histogram.values()), edges, label=name)
            axis.set(xlabel=below, ylabel="tracks")
    axes.flat[0].legend()
    figure.savefig(folder / "chains.png", dpi=120)


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the three chains beside each other."""
    rows = {
        "targets": lambda f: f"{f['targets']}",
        "efficiency": lambda f: f"{100 * f['efficiency']:.2f} %",
        "fake rate": lambda f: f"{100 * f['fake_rate']:.2f} %",
        "duplicate rate": lambda f: f"{100 * f['duplicate_rate']:.2f} %",
        "d0 (um)": lambda f: f"{1e3 * f['resolution']['d0']:.1f}",
        "z0 (um)": lambda f: f"{1e3 * f['resolution']['z0']:.1f}",
        "q/pT, relative": lambda f: f"{100 * f['resolution']['qopt_rel']:.2f} %",
        "pull of d0": lambda f: f"{f['pull']['d0']['mean']:.2f} +- {f['pull']['d0']['width']:.2f}",
        "pull of z0": lambda f: f"{f['pull']['z0']['mean']:.2f} +- {f['pull']['z0']['width']:.2f}",
        "pull of q/p": lambda f: (
            f"{f['pull']['qop']['mean']:.2f} +- {f['pull']['qop']['width']:.2f}"
        ),
    }
    print(f"{'':16}" + "".join(f"{name:>16}" for name in CHAINS))
    for row, text in rows.items():
        print(f"{row:16}" + "".join(f"{text(found[name]):>16}" for name in CHAINS))
