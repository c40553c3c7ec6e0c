"""What the fit of tracks gives: is quality a share, how well parameters are known, what it costs.

    python -m studies.physics.fitted EVENTS [--real DIR] [--bundle DIR] [--events 4] [--out FILE]

EVENTS are simulated, with truth, and the quality must not have been learned from them. Quality is held
against double majority; parameters and pulls against the truth of found primary particles, at their
production. A width is half of what holds 68 % of the tracks. Processor seconds are of one core, each event
with and without in turn. On --real events only the cuts on quality are tried: their truth is not exact.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.clock import spread
from studies.markdown import markdown
from studies.record import RESULTS, installation, write_json
from trackserve.bundle import read_bundle
from trackserve.contract.wanted import Wanted
from trackserve.data import find_events
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.matching import match
from trackserve.evaluate.metrics import HARD_PT, HEADLINE, LOW_PT, SOFT, STRICT, fakes_above
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.bundle import Bundle
    from trackserve.engines.base import Pipeline
    from trackserve.event import Bool, Event, Float64, Particles, Tracks, Truth

FITTED = RESULTS / "fit.json"
CUTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""What ``min_quality`` is tried with."""
PT_BINS, ETA_BINS = (0.2, 0.5, 1.0, 2.0, 50.0), (0.0, 1.0, 2.0, 3.0, 4.0)
PARAMETERS = ("pt", "phi", "eta", "d0", "z0")
FEWEST = 20
"""A width is not given for fewer tracks."""
ROUNDS = 2


def true_parameters(particles: Particles) -> dict[str, Float64]:
    """Return what the fit should find of particles from the beam line, each ``[P]``.

    The way from the production to the closest approach is short: taken as straight.
    """
    phi = np.arctan2(particles.py, particles.px)
    along = particles.vx * np.cos(phi) + particles.vy * np.sin(phi)
    return {
        "pt": particles.pt,
        "phi": phi,
        "eta": particles.eta,
        "d0": particles.vy * np.cos(phi) - particles.vx * np.sin(phi),
        "z0": particles.vz - along * np.sinh(particles.eta),
    }


def width(values: Float64) -> float | None:
    """Return half of the central 68.3 % of some values, None where they are few."""
    if len(values) < FEWEST:
        return None
    low, high = np.quantile(values, (0.1585, 0.8415))
    return float(high - low) / 2


def residuals(tracks: Tracks, truth: Truth) -> dict[str, Float64]:
    """Return of found primary particles: pT and eta, the fit minus truth, and the errors; ``[M]`` each."""
    table, found = tracks.parameters, match(tracks.labels, truth)
    assert table is not None, "tracks without parameters"
    particles = truth.particles
    primary = particles.primary & (particles.production_radius < 2) & (particles.q != 0)
    rows = np.flatnonzero(found.track_matched & primary[found.track_particle])
    which, true = found.track_particle[rows], true_parameters(particles)
    columns = {
        "true_pt": particles.pt[which],
        "true_eta": particles.eta[which],
        "right_charge": (table.charge[rows] == particles.q[which]).astype(np.float64),
    }
    for name in PARAMETERS:
        off = getattr(table, name)[rows].astype(np.float64) - true[name][which]
        if name == "phi":
            off = (off + np.pi) % (2 * np.pi) - np.pi
        columns[name] = off
        columns[f"{name}_error"] = getattr(table, f"{name}_error")[rows].astype(np.float64)
    return columns


def resolution(columns: dict[str, Float64]) -> list[dict[str, Any]]:
    """Return the widths of residuals and of pulls in bins of pT and eta."""
    pt, eta = columns["true_pt"], np.abs(columns["true_eta"])
    rows = []
    for low_pt, high_pt in itertools.pairwise(PT_BINS):
        for low, high in itertools.pairwise(ETA_BINS):
            inside = (pt >= low_pt) & (pt < high_pt) & (eta >= low) & (eta < high)
            row: dict[str, Any] = {"bin": {"pt": [low_pt, high_pt], "eta": [low, high]}}
            row["tracks"] = int(inside.sum())
            row["right_charge"] = _mean(columns["right_charge"][inside])
            for name in PARAMETERS:
                off, error = columns[name][inside], columns[f"{name}_error"][inside]
                row[f"{name}_pull"] = width(off / error)
                row[name] = width(off / pt[inside] if name == "pt" else off)
            rows.append(row)
    return rows


def _mean(values: Float64) -> float | None:
    return float(values.mean()) if len(values) >= FEWEST else None


def calibration(quality: Float64, right: Bool) -> list[dict[str, Any]]:
    """Return in ten bins of quality: its mean, the share of tracks that is right, and their number."""
    place = np.clip((10 * quality).astype(np.int64), 0, 9)
    rows = []
    for number in range(10):
        inside = place == number
        count = int(inside.sum())
        rows.append(
            {
                "from": number / 10,
                "tracks": count,
                "quality": float(quality[inside].mean()) if count else None,
                "right": float(right[inside].mean()) if count else None,
            }
        )
    return rows


def cost(bundle: Bundle, events: Sequence[Event], engine: str) -> dict[str, Any]:
    """Return processor seconds of an event without a fit, fitted at the end, and as the bundle does it."""
    walked = replace(bundle.track_builder, join=0.0, min_quality=0.0, extend=0.0)
    plain = replace(bundle, track_builder=walked, second_pass=None)
    bare, whole = open_pipeline(plain, engine=engine), open_pipeline(bundle, engine=engine)
    labels, parameters = Wanted(), Wanted(parameters=True)
    ways = {
        "no_fit": (bare, labels),
        "fit": (bare, parameters),
        "bundle": (whole, labels),
        "bundle_parameters": (whole, parameters),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for event in events:
            features = hit_features(event.hits, bundle.features)
            for name, (pipeline, wanted) in ways.items():
                began = time.process_time()
                pipeline.run_events([features], wanted)
                if turn:  # the first warms up
                    spent[name].append(time.process_time() - began)
    fit = np.subtract(spent["fit"], spent["no_fit"])
    return {
        **{name: spread(seconds) for name, seconds in spent.items()},
        "fit_seconds": spread(fit.tolist()),
        "fit_share": spread((fit / spent["no_fit"]).tolist()),
    }


def judged(pipeline: Pipeline, events: Sequence[Event]) -> dict[str, Any]:
    """Return the calibration, the widths and what each cut on quality finds."""
    qualities, right, seen = [], [], []
    by_cut: dict[float, list[dict[str, Ratio]]] = {cut: [] for cut in CUTS}
    for event in events:
        if event.truth is None:
            message = f"event {event.event_id} has no truth; expected simulated events"
            raise InputError(message)
        tracks = pipeline.find_tracks(event.hits, parameters=True, min_quality=0.0)
        assert tracks.parameters is not None, "asked for"
        quality = tracks.parameters.quality.astype(np.float64)
        qualities.append(quality)
        right.append(match(tracks.labels, event.truth).track_matched)
        chosen = tracks.select(quality >= pipeline.bundle.min_quality)
        seen.append(residuals(chosen, event.truth))
        for cut, counted in by_cut.items():
            counted.append(_counts(tracks.select(quality >= cut), event.truth))
    columns = {name: np.concatenate([each[name] for each in seen]) for name in seen[0]}
    return {
        "calibration": calibration(np.concatenate(qualities), np.concatenate(right)),
        "resolution": resolution(columns),
        "cuts": [_row(cut, each) for cut, each in by_cut.items()],
    }


def judged_cuts(pipeline: Pipeline, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return what each cut on quality finds."""
    by_cut: dict[float, list[dict[str, Ratio]]] = {cut: [] for cut in CUTS}
    for event in events:
        assert event.truth is not None, "real events come with near-truth"
        tracks = pipeline.find_tracks(event.hits, parameters=True, min_quality=0.0)
        assert tracks.parameters is not None, "asked for"
        for cut, counted in by_cut.items():
            counted.append(_counts(tracks.select(tracks.parameters.quality >= cut), event.truth))
    return [_row(cut, each) for cut, each in by_cut.items()]


def _counts(tracks: Tracks, truth: Truth) -> dict[str, Ratio]:
    """Return the efficiencies of some sets of targets, fakes and duplicates, as `evaluate` counts them."""
    found = match(tracks.labels, truth)
    counts = {}
    for targets in (HEADLINE, STRICT, LOW_PT, SOFT):
        chosen = targets.select(truth, found.particle_hits)
        counts[targets.name] = Ratio(int(found.particle_matched[chosen].sum()), int(chosen.sum()))
    return counts | {
        "fakes": Ratio(int((~found.track_pure).sum()), len(tracks)),
        "hard_fakes": fakes_above(found, truth.particles.pt > HARD_PT),
        "duplicates": Ratio(int(found.duplicates.sum()), len(tracks)),
    }


def _row(cut: float, events: Sequence[dict[str, Ratio]]) -> dict[str, Any]:
    names = events[0]
    added = {name: reduce(add, [counts[name] for counts in events]).to_json() for name in names}
    return {"min_quality": cut, **added}


# ---- the tables of docs/fit.md


def calibration_table(record: dict[str, Any]) -> str:
    """Return quality beside the share of tracks that is right."""
    bins = record["calibration"]
    rows = [["quality", *(f"{b['from']:g}-{b['from'] + 0.1:.2g}" for b in bins)]]
    for name, key in (("mean quality", "quality"), ("share that is right", "right")):
        rows.append([name, *(_number(b[key], ".3f") for b in bins)])
    rows.append(["tracks", *(f"{b['tracks']:,}" for b in bins)])
    return markdown(rows)


def resolution_table(record: dict[str, Any]) -> str:
    """Return the widths of residuals and pulls."""
    scales = {"pt": 100, "phi": 1000, "eta": 1000, "d0": 1000, "z0": 1000}
    heading = ["pT, GeV", "|eta|", "tracks", "pT, %", "phi, mrad", "eta, 1e-3", "d0, um", "z0, um"]
    rows = [[*heading, "pulls of pT, phi, eta, d0, z0", "right charge, %"]]
    for row in record["resolution"]:
        widths = [row[n] if row[n] is None else row[n] * scale for n, scale in scales.items()]
        rows.append(
            [
                *("{:g}-{:g}".format(*row["bin"][n]) for n in ("pt", "eta")),
                f"{row['tracks']:,}",
                *(_number(w, ".1f" if i < 3 else ".0f") for i, w in enumerate(widths)),
                ", ".join(_number(row[f"{n}_pull"], ".2f") for n in PARAMETERS),
                _number(row["right_charge"] and 100 * row["right_charge"], ".1f"),
            ]
        )
    return markdown(rows)


def real_cuts_table(record: dict[str, Any]) -> str:
    """Return the same on real events."""
    return cuts_table(record, "real_cuts")


def cuts_table(record: dict[str, Any], cuts: str = "cuts") -> str:
    """Return what is found at each cut on quality; the bundle's own cut is named."""
    names = ("headline", "strict", "low_pt", "soft", "fakes", "hard_fakes", "duplicates")
    heading = ["headline", "strict", "0.5-1 GeV", "0.2-0.5 GeV", "fakes", "fakes above 0.9 GeV", "duplicates"]  # fmt: skip
    rows = [["min_quality", *heading]]
    for row in record.get(cuts, []):
        values = [_number(row[n]["value"] and 100 * row[n]["value"], ".2f") for n in names]
        default = ", the default" if row["min_quality"] == record["min_quality"] else ""
        rows.append([f"{row['min_quality']:g}{default}", *values])
    return markdown(rows)


def cost_table(record: dict[str, Any]) -> str:
    """Return what an event costs without a fit, and what the fit adds."""
    cost = record["cost"]
    share = [f"{100 * cost['fit_share'][key]:.1f}" for key in ("median", "low", "high")]
    heading = [
        "tracks without a fit, s",
        "fit, s",
        "share of the event, %",
        "quartiles, %",
        "pairs",
    ]
    row = [f"{cost[key]['median']:.3f}" for key in ("no_fit", "fit_seconds")]
    return markdown(
        [heading, [*row, share[0], " to ".join(share[1:]), str(cost["fit_share"]["count"])]]
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


TABLES = {
    "fit-calibration": calibration_table,
    "fit-resolution": resolution_table,
    "fit-cuts": cuts_table,
    "fit-cuts-real": real_cuts_table,
    "fit-cost": cost_table,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description="What the fit of tracks gives, on simulated events."
    )
    parser.add_argument("path", type=Path, metavar="EVENTS", help="a folder of events with truth")
    parser.add_argument("--real", type=Path, help="a folder of real events")
    parser.add_argument("--bundle", type=Path, help="a bundle's folder (default: the shipped one)")
    parser.add_argument("--engine", default="auto", help="the engine")
    parser.add_argument("--events", type=int, default=4, help="how many events")
    parser.add_argument("--out", type=Path, default=FITTED, help="where the JSON is written")
    options = parser.parse_args(arguments)
    bundle = read_bundle(options.bundle)
    columns = tuple(
        dict.fromkeys((*bundle.features.wire_columns, "volume_id", "layer_id", "module_id"))
    )
    sources, real = (
        find_events(path)[: options.events] if path else [] for path in (options.path, options.real)
    )
    events = [source.read_columns(columns) for source in sources]
    pipeline = open_pipeline(bundle, engine=options.engine)
    record = {
        "installation": installation(),
        "bundle": bundle.name,
        "digest": bundle.digest(),
        "min_quality": bundle.min_quality,
        "events": [source.event_id for source in sources],
        **judged(pipeline, events),
        "real_events": [source.event_id for source in real],
        "real_cuts": judged_cuts(pipeline, [s.read_columns(columns) for s in real]),
        "cost": cost(bundle, events[:2], options.engine),
    }
    write_json(options.out, record)
    print(*(make(record) for make in TABLES.values()), sep="\n\n")


if __name__ == "__main__":
    main()
