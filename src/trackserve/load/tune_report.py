"""What a search for settings found: a report with tables and plots, and the settings as a file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from trackserve.files import whole, write_text
from trackserve.load.tune import AXES, SLOWEST, Candidate
from trackserve.serving.settings_file import write_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trackserve.load.tune import Tuning

Trial = dict[str, Any]


def write_report(tuning: Tuning, trials: Sequence[Trial]) -> list[Path]:
    """Write report.md, plots, and settings.toml if a trial meets the goal; returns their paths."""
    folder, plain = tuning.folder, [trial for trial in trials if "overload" not in trial]
    best = tuning.best(plain)
    hits = [len(each) for each in tuning.hits]
    lines = [
        f"# Settings for {tuning.goal}",
        "",
        f"{tuning.cores} cores; {len(hits)} events of {sum(hits) / len(hits):,.0f} hits on average; "
        f"bundle {tuning.bundle.name}; each load {tuning.seconds:g} s; {len(trials)} trials.",
        "",
    ]
    paths = []
    if best is None:
        lines += ["No trial meets this goal.", ""]
    else:
        lines += _best(tuning, trials, *best, folder / "settings.toml")
        lines += ["## What was tried", "", *_axes(tuning, plain, Candidate.of(best[0])), ""]
        paths.append(folder / "settings.toml")
    lines += ["## Trials, with the best load of each", "", *_table(tuning, plain), ""]
    if overloads := [trial for trial in trials if "overload" in trial]:
        lines += _overloads(overloads, keeps=tuning.queue(trials)[1])
    lines += _pareto_front(plain)
    for name, draw in (
        ("throughput", _by_concurrency),
        ("instances", _by_instances),
        ("front", _front),
    ):
        paths.append(_plot(folder / f"{name}.png", draw, plain))
        lines += [f"![{name}]({name}.png)", ""]
    path = folder / "report.md"
    write_text(path, "\n".join(lines))
    return [path, *paths]


def _best(
    tuning: Tuning, trials: Sequence[Trial], trial: Trial, point: dict[str, Any], path: Path
) -> list[str]:
    """Write the settings of the best trial and return the lines about it."""
    candidate = Candidate.of(trial)
    limit, _ = tuning.queue(trials)
    if limit is not None:
        candidate = replace(candidate, max_queue=limit)
    measured = (
        f"{_load(point)} over {_wire(trial)}: {point['throughput']:.1f} events/s, "
        f"p50 {_ms(point, 'p50')}, p95 {_ms(point, 'p95')}, p99 {_ms(point, 'p99')} ms"
    )
    write_settings(candidate.settings, path, f"For {tuning.goal}.\nMeasured with {measured}.")
    return [f"Best: {_words(candidate)}; {measured}.", ""]


def _overloads(overloads: Sequence[Trial], *, keeps: bool) -> list[str]:
    """Return the section on the queue's limit; ``keeps``: one of them keeps the goal."""
    lines = [
        "## Queue limit at twice the capacity",
        "",
        "| max_queue | offered/s | answered/s | p99 ms | refused |",
        "|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {t['candidate']['max_queue']} | {p['load']['rate']:.0f} | {p['throughput']:.1f} "
        f"| {_ms(p, 'p99')} | {p['counts']['refused'] / max(p['counts']['sent'], 1):.0%} |"
        for t in overloads
        for p in t["loads"]
    ]
    lines.append("")
    if not keeps:
        lines += [
            "No limit keeps the goal under this load. The settings use the shortest queue that does "
            "not refuse the best load.",
            "",
        ]
    return lines


def _pareto_front(trials: Sequence[Trial]) -> list[str]:
    """Return the section on the loads that no other one beats."""
    lines = [
        "## The Pareto front",
        "",
        "Loads for which no other has both more events/s and a lower p99.",
        "",
        "| events/s | p99 ms | settings | load |",
        "|--:|--:|---|---|",
    ]
    lines += [
        f"| {p['throughput']:.1f} | {_ms(p, 'p99')} | {_words(Candidate.of(t))}, {_wire(t)} | {_load(p)} |"
        for t, p in front(trials)
    ]
    return [*lines, ""]


def front(trials: Sequence[Trial]) -> list[tuple[Trial, dict[str, Any]]]:
    """Return the loads that no other one beats in both throughput and p99, from slow to fast."""
    pairs = [(t, p) for t in trials for p in t["loads"] if p["latency"]["p99"] is not None]
    pairs.sort(key=lambda pair: (-pair[1]["throughput"], pair[1]["latency"]["p99"]))
    kept: list[tuple[Trial, dict[str, Any]]] = []
    for trial, point in pairs:
        if not kept or point["latency"]["p99"] < kept[-1][1]["latency"]["p99"]:
            kept.append((trial, point))
    return kept[::-1]


def _axes(tuning: Tuning, trials: Sequence[Trial], best: Candidate) -> list[str]:
    """Return which values of each axis were tried in any trial, and which neighbours of the best were not."""
    tried = [Candidate.of(trial) for trial in trials]
    lines = ["| axis | tried | not tried |", "|---|---|---|"]
    for axis, fields in AXES.items():
        value = partial(_value, fields)
        done = list(dict.fromkeys(map(value, tried)))
        left = dict.fromkeys(map(value, tuning.along(axis, best)))
        lines.append(
            f"| {axis} | {', '.join(done)} | {', '.join(v for v in left if v not in done)} |"
        )
    return lines


def _value(fields: Sequence[str], candidate: Candidate) -> str:
    """Return a candidate's place on an axis in words."""
    values = [getattr(candidate, field) for field in fields]
    if fields == AXES["widened stages"]:
        widened = " and ".join(candidate.widened) or "none"
        return widened if candidate.shape == "ensemble" else "none (monolith)"
    if fields == AXES["protocol"]:
        return candidate.protocol + (" with shared memory" if candidate.shared_memory else "")
    return " x ".join(map(str, values)) if isinstance(values[0], int) else " on ".join(values)


def _table(tuning: Tuning, trials: Sequence[Trial]) -> list[str]:
    lines = ["| settings | wire | load | events/s | p50 ms | p95 ms | p99 ms | MB |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|")
    for trial in trials:
        words = _words(Candidate.of(trial))
        if not trial["loads"]:
            lines.append(f"| {words} | {_wire(trial)} | {trial.get('error', '')} | | | | | |")
            continue
        most = max(trial["loads"], key=lambda p: (tuning.goal.score(p), p["throughput"]))
        latency = " | ".join(_ms(most, p) for p in ("p50", "p95", "p99"))
        lines.append(
            f"| {words} | {_wire(trial)} | {_load(most)} | {most['throughput']:.1f} | {latency} "
            f"| {trial['memory'] / 1e6:.0f} |"
        )
    return lines


def _words(candidate: Candidate) -> str:
    precision = "" if candidate.precision == "bundle" else f" in {candidate.precision}"
    batch = "" if candidate.batch == 1 else f", batch {candidate.batch}"
    if candidate.shape == "ensemble" and candidate.widened != SLOWEST:
        batch += f", more than one of {' and '.join(candidate.widened) or 'none'}"
    return (
        f"{candidate.shape}, {candidate.engine}{precision}, "
        f"{candidate.instances} x {candidate.threads} threads, queue {candidate.max_queue}{batch}"
    )


def _wire(trial: Trial) -> str:
    return _value(AXES["protocol"], Candidate.of(trial))


def _load(point: dict[str, Any]) -> str:
    load = point["load"]
    return f"{load['concurrency']} in flight" if load["concurrency"] else f"{load['rate']:g}/s"


def _ms(point: dict[str, Any], percentile: str) -> str:
    seconds = point["latency"][percentile]
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _plot(
    path: Path, draw: Callable[[Any, Sequence[Trial]], None], trials: Sequence[Trial]
) -> Path:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    draw(axes, trials)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    with whole(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
    return path


def _by_concurrency(axes: Any, trials: Sequence[Trial]) -> None:
    for trial in trials:
        points = [p for p in trial["loads"] if p["load"]["concurrency"]]
        x = [p["load"]["concurrency"] for p in points]
        if x:
            label = f"{_words(Candidate.of(trial))}, {_wire(trial)}"
            axes.plot(x, [p["throughput"] for p in points], "o-", label=label)
    axes.set(xlabel="requests in flight", ylabel="events answered per second", ylim=(0, None))


def _by_instances(axes: Any, trials: Sequence[Trial]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for trial in trials:
        candidate = Candidate.of(trial)
        if trial["loads"]:
            name = f"{candidate.shape}, {candidate.engine}, {candidate.threads} threads, {_wire(trial)}"
            most = max(p["throughput"] for p in trial["loads"])
            lines.setdefault(name, []).append((candidate.instances, most))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=name)
    axes.set(xlabel="instances", ylabel="most events answered per second", ylim=(0, None))


def _front(axes: Any, trials: Sequence[Trial]) -> None:
    for percentile in ("p50", "p95", "p99"):
        points = [
            (p["throughput"], 1000 * p["latency"][percentile])
            for t in trials
            for p in t["loads"]
            if p["latency"][percentile] is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), ".", label=percentile)
    best = [(p["throughput"], 1000 * p["latency"]["p99"]) for _, p in front(trials)]
    if best:
        axes.plot(*zip(*best, strict=True), "-", label="front of p99")
    axes.set(xlabel="events answered per second", ylabel="latency, ms", yscale="log")
