"""The tables of the physics report, made from ``results/physics.json``: ratios in percent.

Symbols in the tables: a ratio stands with its 68.3 % interval in brackets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SETS = {
    "headline": "|eta| < 4, 3 or more hits",
    "strict": "|eta| < 3, 6 or more hits",
    "low_pt": "0.5 < pT < 1 GeV, |eta| < 4",
}
UNITS = {"pt": "pT, GeV", "phi": "phi, rad", "production_radius": "production radius, mm"}
"""The variables whose name doesn't say it all."""


def percent(record: Mapping[str, Any], name: str) -> str:
    """Return a ratio of a record with its interval; a dash for a ratio of nothing."""
    if record[name] is None:
        return "-"
    low, high = record[f"{name}_interval"]
    return f"{100 * record[name]:.2f} % ({100 * low:.2f}-{100 * high:.2f})"


def summary(record: Mapping[str, Any]) -> str:
    """Return everything that isn't binned, for the bundle and each configuration of ACTS."""
    ckf = record["ckf"]
    found = {
        "`hl-lhc`": record,
        "ACTS, best": ckf,
        "ACTS, fast": ckf["fast"],
        "ACTS, ten branches": ckf["ten_branches"],
    }
    each = list(found.values())
    return markdown(
        [
            ("", *found),
            ("events", *(str(e["events"]) for e in each)),
            ("tracks an event", *(f"{e['tracks_per_event']:,.0f}" for e in each)),
            *_efficiencies(each, SETS),
            *_efficiencies(each, SETS, "single_majority", "single majority"),
            *_efficiencies(each, SETS, "perfect", "perfect"),
            *_rates(each),
            (
                "duplicates of headline targets",
                *(percent(e["headline"], "target_duplicate_rate") for e in each),
            ),
            (
                "TrackML score",
                *(f"{e['trackml_score']:.4f} ± {e['trackml_score_spread']:.4f}" for e in each),
            ),
            (
                "processor seconds an event",
                *(f"{e['processor_seconds_per_event']['total']:.1f}" for e in each),
            ),
        ]
    )


def pileup_20(record: Mapping[str, Any]) -> str:
    """Return the same on events at pileup 20, shorter."""
    each = [record["pileup_20"], record["pileup_20"]["ckf"]]
    return markdown(
        [
            ("", "`hl-lhc`", "ACTS, best"),
            ("events", *(str(e["events"]) for e in each)),
            *_efficiencies(each, SETS),
            *_rates(each),
            ("TrackML score", *(f"{e['trackml_score']:.4f}" for e in each)),
        ]
    )


def stages(record: Mapping[str, Any]) -> str:
    """Return how the graph fares from stage to stage."""
    rows = [("events", "after", "edges an event", "edge efficiency", "edge purity")]
    for name, each in (("pileup 20", record["pileup_20"]), ("pileup 200", record)):
        for stage, counts in each["stages"].items():
            edges = f"{counts['edges_per_event']:,.0f}"
            rows.append(
                (name, stage, edges, percent(counts, "efficiency"), percent(counts, "purity"))
            )
    return markdown(rows)


def losses(record: Mapping[str, Any]) -> str:
    """Return what the lost targets died of: how many of them, and which share of the targets."""
    names = ("headline", "strict", "low_pt")
    rows: list[Sequence[str]] = [("died of", *names)]
    for reason in record["headline"]["lost"]:
        cells = []
        for name in names:
            lost, total = record[name]["lost"][reason], record[name]["efficiency_counts"][1]
            cells.append(f"{lost:,} ({100 * lost / max(total, 1):.2f} %)")
        rows.append((f"`{reason}`", *cells))
    totals = [record[name]["efficiency_counts"] for name in names]
    rows.append(("lost of all targets", *(f"{n - k:,} of {n:,}" for k, n in totals)))
    return markdown(rows)


def bins(record: Mapping[str, Any]) -> str:
    """Return the efficiency in bins of every variable, the Kalman filter's beside it."""
    columns = {
        "headline": record["headline"],
        "strict": record["strict"],
        "strict, ACTS": record["ckf"]["strict"],
    }
    parts = []
    for variable in record["headline"]["bins"]:
        binned = {name: each["bins"][variable] for name, each in columns.items()}
        edges = binned["headline"]["edges"]
        rows: list[Sequence[str]] = [(UNITS.get(variable, variable), "targets", *columns)]
        for low, high in pairwise(edges):
            place = {name: _bin(each, (low + high) / 2) for name, each in binned.items()}
            targets = place["headline"][1]
            if targets:
                cells = [text for text, _ in place.values()]
                rows.append((f"{low:.3g} to {high:.3g}", f"{targets:,}", *cells))
        parts.append(markdown(rows))
    return "\n\n".join(parts)


def _bin(binned: Mapping[str, Any], place: float) -> tuple[str, int]:
    """Return the efficiency in the bin around ``place``, and its targets; a dash if there is none."""
    for i, (low, high) in enumerate(pairwise(binned["edges"])):
        if low < place < high and binned["total"][i]:
            value, least, most = (100 * binned[key][i] for key in ("value", "low", "high"))
            return f"{value:.1f} % ({least:.1f}-{most:.1f})", binned["total"][i]
    return "-", 0


def elsewhere(record: Mapping[str, Any]) -> str:
    """Return what other conditions cost, in points of efficiency."""
    heading = (
        *("conditions", "events", "headline", "points lost", "strict", "points lost"),
        *("fake rate", "ACTS, strict", "points lost"),
    )
    rows: list[Sequence[str]] = [heading]
    for name, each in record["elsewhere"].items():
        cells = [name, str(each["events"])]
        for targets in ("headline", "strict"):
            cells += [percent(each[targets], "efficiency"), _lost(each, targets)]
        cells += [percent(each["headline"], "fake_rate")]
        cells += [percent(each["ckf"]["strict"], "efficiency"), _lost(each["ckf"], "strict")]
        rows.append(cells)
    return markdown(rows)


def _lost(record: Mapping[str, Any], targets: str) -> str:
    lost = record["points_lost"][targets]
    return "-" if lost is None else f"{lost['value']:+.2f} ± {lost['error']:.2f}"


def columns(record: Mapping[str, Any]) -> str:
    """Return what x, y, z alone cost, and what the other engine finds."""
    precision = record["bundle"]["precision"]
    found = {
        f"native, {precision}": record,
        "native, float32": record["float32"],
        "reference, float32": record["engines"]["reference"],
        "native, x, y, z alone": record["positions_only"],
    }
    each = list(found.values())
    table = markdown(
        [
            ("", *found),
            ("events", *(str(e["events"]) for e in each)),
            *_efficiencies(each, SETS),
            *_rates(each),
        ]
    )
    bundle = record["bundle"]
    takes = ", ".join(f"`{column}`" for column in bundle["columns"])
    return f"The bundle `{bundle['name']}`, digest `{bundle['digest']}`, takes the columns {takes}.\n\n{table}"


def configurations(record: Mapping[str, Any]) -> str:
    """Return every setting of each configuration of the Kalman filter."""
    ckf = record["ckf"]
    found = {
        "best": ckf["configuration"],
        "fast": ckf["fast"]["configuration"],
        "ten branches": ckf["ten_branches"]["configuration"],
    }
    flat = {name: _flat(each) for name, each in found.items()}
    rows: list[Sequence[str]] = [("setting", *found)]
    rows += [
        (f"`{key}`", *(f"{each.get(key, '-')}" for each in flat.values())) for key in flat["best"]
    ]
    steps = ckf["processor_seconds_per_event"]
    rows += [
        (
            f"processor seconds an event: {step}",
            *(
                f"{each['processor_seconds_per_event'][step]:.2f}"
                for each in (ckf, ckf["fast"], ckf["ten_branches"])
            ),
        )
        for step in steps
    ]
    return markdown(rows)


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = round(value, 6) if isinstance(value, float) else value
    return flat


def _efficiencies(
    records: Iterable[Mapping[str, Any]],
    names: Iterable[str],
    key: str = "efficiency",
    title: str = "efficiency",
) -> list[Sequence[str]]:
    return [
        (f"{title}, {SETS[name]}", *(percent(each[name], key) for each in records))
        for name in names
    ]


def _rates(records: Iterable[Mapping[str, Any]]) -> list[Sequence[str]]:
    names = {
        "fake_rate": "fake rate",
        "hard_fake_rate": "fake rate above 0.9 GeV",
        "duplicate_rate": "duplicate rate",
    }
    return [
        (name, *(percent(each["headline"], key) for each in records)) for key, name in names.items()
    ]


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "physics-summary": summary,
    "physics-pileup-20": pileup_20,
    "stages": stages,
    "losses": losses,
    "efficiency-bins": bins,
    "elsewhere": elsewhere,
    "columns-and-engines": columns,
    "ckf-configurations": configurations,
}
"""The made parts of the documentation, by their names there."""
