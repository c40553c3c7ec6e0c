"""The tables of docs/speed.md, from what ``python -m studies.speed`` and ``studies.speed.techniques`` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Record = dict[str, Any]
MEGABYTE = 1e6


def spread(measured: Record, digits: int = 2) -> str:
    """Return a median with its quartiles."""
    return "{median:.{d}f} ({low:.{d}f}-{high:.{d}f})".format(**measured, d=digits)


def installation(result: Record) -> str:
    """Return the hardware and software of the measurement."""
    installation = result["installation"]
    bundle = result["bundle"]
    wanted = ("processor", "engine native", "engine reference", "python")
    rows = [(name, installation[name]) for name in wanted]
    rows.append(("bundle", f"{bundle['name']} {bundle['digest']}, radius {bundle['radius']:.3f}"))
    return markdown([("", ""), *rows])


def whole(result: Record) -> str:
    """Return seconds an event of each precision and of the classical chain."""
    found = result["whole"]
    chain = found["seconds"]["chain"]["median"]
    rows = [
        (
            f"ACTS chain, configuration {found['chain']}"
            if name == "chain"
            else f"native, {name}{' (the bundle as it is)' * (name == found['precision'])}",
            spread(seconds),
            f"{seconds['median'] / chain:.2f}",
        )
        for name, seconds in found["seconds"].items()
    ]
    return markdown([("", "processor seconds per event", "ratio to the chain"), *rows])


def headline(result: Record) -> str:
    """Return in one sentence what an event costs beside the classical chain."""
    found = result["whole"]["seconds"]
    own, chain = found[result["whole"]["precision"]], found["chain"]
    return (
        f"One core finds the tracks of an event at pileup 200 in {own['median']:.2f} s "
        f"({own['low']:.2f}-{own['high']:.2f}); ACTS' combinatorial Kalman filter, in its faster configuration, "
        f"takes {chain['median']:.2f} s ({chain['low']:.2f}-{chain['high']:.2f}) on the same core and events."
    )


def processors(results: Sequence[Record]) -> str:
    """Return what was measured on each of several processors, side by side."""
    columns = []
    for result in results:
        own = result["whole"]["precision"]
        seconds, wall = result["whole"]["seconds"], result["threads"]["wall_seconds"]
        columns.append(
            (
                result["installation"]["processor"],
                f"{result['installation']['engine native'].split()[0]}, {own}",
                f"{spread(seconds[own])} s",
                f"{spread(seconds['chain'])} s",
                f"{result['whole']['ratio']:.2f}",
                f"{result['neighbours_speedup']:.1f}",
                f"{spread(result['small']['quiet']['ms'], 1)} ms",
                f"{spread(wall['1'])} and {spread(wall['2'])} s",
                f"{result['threads']['speedup']:.2f}",
                f"{result['side by side']['throughput']:.2f}",
                f"{result['side by side']['peak_bytes'] / MEGABYTE:.0f} MB",
            )
        )
    names = (
        "",
        "variant of the engine, precision",
        "an event at pileup 200, processor",
        "ACTS chain, configuration fast",
        "ratio to the chain",
        "speedup over cKDTree, all pairs within the radius",
        "an event of 1,321 hits",
        "one and two threads, wall",
        "speedup of two threads",
        "throughput of two workers over one",
        "peak memory of a worker",
    )
    heading, *rows = zip(names, *columns, strict=True)
    return markdown([heading, *rows])


def stages(result: Record) -> str:
    """Return milliseconds of each stage in each precision, and of each step of the chain."""
    found = result["whole"]["stages"]
    precisions = [name for name in found if name != "chain"]
    own = found[precisions[0]]
    rows = [
        (
            stage,
            *(f"{1000 * found[name][stage]:.0f}" for name in precisions),
            f"{100 * own[stage] / own['total']:.1f} %",
        )
        for stage in own
    ]
    heading = ("stage", *(f"{name}, ms" for name in precisions), f"share in {precisions[0]}")
    steps = [(step, f"{1000 * s:.0f}") for step, s in found["chain"].items()]
    return markdown([heading, *rows]) + "\n\n" + markdown([("step of the chain", "ms"), *steps])


def search(result: Record) -> str:
    """Return seconds of each search for every pair within the radius."""
    found = result["search"]
    ours = found["median_seconds"]["trackserve"]
    rows = [
        (
            name,
            f"{seconds:.2f}",
            ", ".join(f"{each:.2f}" for each in found["seconds"][name]),
            f"{seconds / ours:.1f}",
            f"{found['pairs_that_differ_from_scipy'][name]:,}",
        )
        for name, seconds in found["median_seconds"].items()
    ]
    stage = result["stage"]["median_seconds"]
    text = (
        f"{found['hits']:,} hits in {found['dimension']} dimensions, radius {found['radius']:.3f}: "
        f"{found['pairs']:,} pairs. The whole stage, with doublet cuts and limit, takes "
        f"{stage['trackserve']:.2f} s, the reference {stage['reference']:.1f} s, for the same "
        f"{result['stage']['edges']:,} edges."
    )
    heading = ("search", "median s", "each run", "ratio to ours", "pairs that differ from scipy's")
    return f"{markdown([heading, *rows])}\n\n{text}"


def sweeps(result: Record) -> str:
    """Return how the search's cost grows with hits, density, dimension and radius."""
    columns = {"hits": "hits", "density": "wanted_neighbours", "dimension": "dimension"}
    tables = []
    for swept, found in result["sweeps"].items():
        column = columns.get(swept, swept)
        rows = [
            (
                f"{row[column]:,.3g}" if isinstance(row[column], float) else f"{row[column]:,}",
                f"{row['pairs']:,}",
                f"{1000 * row['trackserve']:.1f}",
                f"{1000 * row['scipy']:.1f}",
                f"{1e9 * row['trackserve'] / max(row['pairs'], 1):.1f}",
            )
            for row in found["rows"]
        ]
        heading = (
            column.replace("_", " "),
            "pairs",
            "ours, ms",
            "cKDTree, ms",
            "ours, ns per pair",
        )
        tables.append(markdown([heading, *rows]))
    return "\n\n".join(tables)


def growth(result: Record) -> str:
    """Return time and memory of a worker against the number of hits."""
    found = result["growth"]
    rows = [
        (
            row["events"],
            f"{row['hits']:,}",
            f"{row['processor']:.3f}",
            f"{row['needed_bytes'] / MEGABYTE:.0f}",
            f"{row['peak_bytes'] / MEGABYTE:.0f}",
        )
        for row in found["rows"]
    ]
    heading = ("events", "hits", "seconds", "MB for the event", "MB at the peak")
    powers = (
        f"Time grows as hits to the power {found['exponent_of_time']:.2f}, memory to the power "
        f"{found['exponent_of_memory']:.2f}."
    )
    return f"{markdown([heading, *rows])}\n\n{powers}"


def others(result: Record) -> str:
    """Return small events, threads, workers, memory, and the share of track building."""
    quiet, crowded = result["small"]["quiet"], result["small"]["crowded"]
    wall = result["threads"]["wall_seconds"]
    rows = [
        (f"an event of {quiet['hits']:,} hits without pileup", f"{spread(quiet['ms'], 1)} ms"),
        (f"{crowded['hits']:,} hits in a wedge at pileup 200", f"{spread(crowded['ms'], 1)} ms"),
        ("one thread, wall", f"{spread(wall['1'])} s"),
        ("two threads, wall", f"{spread(wall['2'])} s"),
        ("speedup of two threads", f"{result['threads']['speedup']:.2f}"),
        ("throughput of two workers over one", f"{result['side by side']['throughput']:.2f}"),
        ("peak memory of a worker", f"{result['side by side']['peak_bytes'] / MEGABYTE:.0f} MB"),
        ("track building", f"{100 * result['whole']['share_of_track_building']:.1f} % of the time"),
    ]
    return markdown([("", ""), *rows])


def techniques(result: Record) -> str:
    """Return of each technique the time, the stages that it changes, the graph and the physics."""
    rows = []
    for name, found in result["techniques"].items():
        now, before = found["seconds"], found["base_seconds"]
        changed = [
            f"{stage} {1000 * before.get(stage, 0):.0f} to {1000 * seconds:.0f}"
            for stage, seconds in now.items()
            if stage not in {"total", "rest"}
            and abs(seconds - before.get(stage, 0)) > max(0.01, 0.15 * before.get(stage, 0))
        ]
        rows.append(
            (
                name,
                f"{1000 * now['total']:,.0f}",
                f"{now['total'] / before['total']:.2f}",
                ", ".join(changed) or "-",
                f"{found['edges'].get('triplets', 0) / 1000:,.0f}",
                *(
                    f"{100 * found[key]['value']:.2f} ({found[key]['points']:+.2f})"
                    for key in ("headline", "strict", "fake_rate")
                ),
                str(found["judged"]),
            )
        )
    heading = (
        "technique",
        "ms",
        "ratio to float32",
        "stages, ms",
        "thousand edges for the GNN",
        "headline, %",
        "strict, %",
        "fakes, %",
        "events judged",
    )
    return markdown([heading, *rows])


def techniques_elsewhere(results: Sequence[Record]) -> str:
    """Return of each technique the time over float32's on each of several processors."""
    rows = [
        (
            name,
            *(
                f"{each['seconds']['total'] / each['base_seconds']['total']:.2f}" if each else "-"
                for each in (result["techniques"].get(name) for result in results)
            ),
        )
        for name in results[0]["techniques"]
    ]
    base = [f"{1000 * r['techniques']['float32']['seconds']['total']:.0f} ms" for r in results]
    heading = ("technique", *(result["installation"]["processor"] for result in results))
    return markdown([heading, ("float32", *base), *rows[1:]])


def floor(result: Record) -> str:
    """Return the least time that operations and bytes of each stage leave possible."""
    found, rate = result["floor"]["precisions"], result["floor"]["rates"]
    first = next(iter(found.values()))["stages"]
    rows = [
        (
            stage,
            f"{(each['products_float32'] + each['products']) / 1e9:.2f}",
            *(
                text
                for of in found.values()
                for text in (
                    f"{of['stages'][stage]['bytes'] / 1e6:,.0f}",
                    f"{1000 * of['stages'][stage]['seconds']:.0f}",
                    f"{1000 * of['stages'][stage]['measured']:.0f}",
                )
            ),
        )
        for stage, each in first.items()
    ]
    columns = (f"{name}: {what}" for name in found for what in ("MB", "floor, ms", "measured, ms"))
    sums = "; ".join(
        f"in {name} {1000 * of['seconds']:.0f} ms, and {1000 * of['measured']:.0f} ms measured"
        for name, of in found.items()
    )
    text = (
        f"The core multiplies and adds {rate['float32'] / 1e9:.0f} billion pairs of float32 a second, "
        f"{rate['bfloat16'] / 1e9:.0f} billion of bfloat16, and moves {rate['bytes'] / 1e9:.0f} GB/s in a copy "
        f"of a large array. Sum of the stages: {sums}."
    )
    return f"{markdown([('stage', 'billion products', *columns), *rows])}\n\n{text}"


def layers(result: Record) -> str:
    """Return nanoseconds a row of one hidden layer in each precision."""
    names = [name for name in result["layers"][0] if name != "width"]
    rows = [(str(each["width"]), *(f"{each[n]:.1f}" for n in names)) for each in result["layers"]]
    return markdown([("width of a layer", *(f"{name}, ns per row" for name in names)), *rows])


TECHNIQUES: dict[str, Callable[[Record], str]] = {"speed-techniques": techniques}
"""The made part of docs/speed.md that comes from techniques.json."""
SPEED: dict[str, Callable[[Record], str]] = {
    "speed-headline": headline,
    "speed-installation": installation,
    "speed-whole": whole,
    "speed-stages": stages,
    "speed-floor": floor,
    "speed-layers": layers,
    "speed-others": others,
    "speed-search": search,
    "speed-sweeps": sweeps,
    "speed-growth": growth,
}
"""Each made part of docs/speed.md that comes from speed.json."""
