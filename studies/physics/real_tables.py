"""The tables of the bundles on real and on simulated events, made from ``results/real.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = tuple[str, ...]

SETS = {
    "low_pt": "`low_pt`, 0.5 to 1 GeV",
    "soft": "`soft`, 0.2 to 0.5 GeV",
    "displaced_2_30": "displaced by 2-30 mm",
    "displaced_30_120": "displaced by 30-120 mm",
    "displaced_120_300": "displaced by 120-300 mm",
}


def percent(record: Mapping[str, Any], name: str = "efficiency") -> str:
    """Return a ratio in percent, a dash for a ratio of nothing."""
    return "-" if record[name] is None else f"{100 * record[name]:.2f}"


def interval(record: Mapping[str, Any], name: str = "efficiency") -> str:
    """Return a ratio in percent with its 68.3 % interval."""
    low, high = record[f"{name}_interval"]
    return f"{percent(record, name)} ({100 * low:.2f}-{100 * high:.2f})"


def first(record: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and numbers of the bundle that was judged first."""
    name, found = next(iter(record["bundles"].items()))
    return str(name), found


def columns(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what each column shows: every bundle on real events, then on simulated ones."""
    bundles = record["bundles"].items()
    return {
        f"`{name}`, {events}": each[events]
        for events in ("real", "simulated")
        for name, each in bundles
        if events in each
    }


def rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows that say what was found."""
    return [
        ("headline", *(interval(each["headline"]) for each in found)),
        ("strict", *(interval(each["strict"]) for each in found)),
        (
            "of the headline with 3, 4, 5 hits",
            *(", ".join(percent(each["by_hits"][n]) for n in "345") for each in found),
        ),
        *((text, *(percent(each[name]) for each in found)) for name, text in SETS.items()),
        ("fakes among tracks above 0.9 GeV", *(percent(e, "hard_fake_rate") for e in found)),
        ("fakes among all tracks", *(percent(e["headline"], "fake_rate") for e in found)),
        ("duplicates", *(percent(e["headline"], "duplicate_rate") for e in found)),
        ("TrackML score", *(f"{each['trackml_score']:.3f}" for each in found)),
    ]


def everything(record: Mapping[str, Any]) -> str:
    """Return every bundle on real events, and those made for them on simulated ones."""
    names, found = zip(*columns(record).items(), strict=True)
    pixels = [each["pixels"] for each in found]
    return markdown(
        [
            ("%", *names),
            ("events", *(str(each["events"]) for each in found)),
            ("hits an event", *(f"{each['hits_per_event']:,.0f}" for each in found)),
            *rows(found),
            ("`pixel`, on the pixel detector alone", *(percent(p["pixel"]) for p in pixels)),
            ("fakes there, above 0.9 GeV", *(percent(p, "hard_fake_rate") for p in pixels)),
            (
                "processor seconds an event, other programs running",
                *(f"{each['processor_seconds_per_event']['total']:.2f}" for each in found),
            ),
        ]
    )


def readme(record: Mapping[str, Any]) -> str:
    """Return what the default bundle finds, on real events first."""
    bundle = first(record)[1]
    found = [bundle["real"], bundle["simulated"]]
    pixels = [each["pixels"] for each in found]
    return markdown(
        [
            (
                "",
                *(
                    f"{each['events']} {n} events"
                    for n, each in zip(("real", "simulated"), found, strict=True)
                ),
            ),
            (
                "efficiency, pT > 1 GeV, |eta| < 4, 3 or more hits",
                *(f"{interval(e['headline'])} %" for e in found),
            ),
            (
                "efficiency, pT > 1 GeV, |eta| < 3, 6 or more hits",
                *(f"{interval(e['strict'])} %" for e in found),
            ),
            ("efficiency, 0.5 < pT < 1 GeV", *(f"{percent(e['low_pt'])} %" for e in found)),
            ("efficiency, 0.2 < pT < 0.5 GeV", *(f"{percent(e['soft'])} %" for e in found)),
            ("pixel detector alone, pT > 0.9 GeV", *(f"{percent(p['pixel'])} %" for p in pixels)),
            (
                "fakes among tracks above 0.9 GeV",
                *(f"{percent(e, 'hard_fake_rate')} %" for e in found),
            ),
            (
                "fakes among all tracks",
                *(f"{percent(e['headline'], 'fake_rate')} %" for e in found),
            ),
            ("duplicates", *(f"{percent(e['headline'], 'duplicate_rate')} %" for e in found)),
            ("TrackML score", *(f"{e['trackml_score']:.3f}" for e in found)),
        ]
    )


def losses(record: Mapping[str, Any]) -> str:
    """Return where the default bundle loses the targets of real events."""
    found = first(record)[1]["staged"]
    names = ("headline", "strict", *SETS)
    died = list(found["headline"]["lost"])
    table = [("lost", *(f"`{name}`" for name in died), "of")]
    for name in names:
        lost, total = found[name]["lost"], found[name]["efficiency_counts"][1]
        table.append((name, *(f"{lost[d]:,}" for d in died), f"{total:,}"))
    return markdown(table)


def stages(record: Mapping[str, Any]) -> str:
    """Return how the graph of the default bundle fares from stage to stage on real events."""
    table = [("after", "edges an event", "edge efficiency, %", "edge purity, %")]
    for stage, each in first(record)[1]["staged"]["stages"].items():
        edges = f"{each['edges_per_event']:,.0f}"
        table.append((stage, edges, percent(each), percent(each, "purity")))
    return markdown(table)


def changed(record: Mapping[str, Any]) -> str:
    """Return what missing hits, dead modules and a moved beam spot cost, against the same collisions."""
    table = [
        ("", "events", "headline", "points lost", "strict", "points lost", "fakes", "duplicates")
    ]
    for name, each in record["changed"].items():
        cells = [name, str(each["events"])]
        for kind in ("headline", "strict"):
            lost = 100 * (each["nominal"][kind]["efficiency"] - each[kind]["efficiency"])
            cells += [percent(each[kind]), f"{lost:.2f}"]
        rates = (percent(each["headline"], f"{rate}_rate") for rate in ("fake", "duplicate"))
        table.append((*cells, *rates))
    return markdown(table)


def acts(record: Mapping[str, Any]) -> str:
    """Return the default bundle beside ACTS' Kalman filter on the same simulated events."""
    peers = {name: each for name, each in record["acts"].items() if name != "bundle"}
    if not peers:
        return "Not measured."
    found = [record["acts"]["bundle"], *peers.values()]
    seconds = (f"{each['processor_seconds_per_event']['total']:.2f}" for each in found)
    return markdown(
        [
            ("%", f"`{first(record)[0]}`", *(f"ACTS, {name}" for name in peers)),
            ("events", *(str(each["events"]) for each in found)),
            *rows(found),
            ("processor seconds an event", *seconds),
        ]
    )


REAL: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "readme": readme,
    "real": everything,
    "real-losses": losses,
    "real-stages": stages,
    "real-changed": changed,
    "real-acts": acts,
}
"""The parts of the documents."""
