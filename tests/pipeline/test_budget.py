"""An event beyond its budget is refused before the work is spent, by every engine, in one sentence."""

from __future__ import annotations

import resource
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trackserve.bundle import read_bundle
from trackserve.bundle.budget import budget_tables, event_budget
from trackserve.data import find_events
from trackserve.engines.registry import available, open_pipeline
from trackserve.errors import BudgetError
from trackserve.event import Hits
from trackserve.pipeline import budget
from trackserve.pipeline.budget import Budget, Extent
from trackserve.pipeline.features import hit_features

EVENT = find_events(Path(__file__).parents[2] / "examples/events/pu20")[0].read(truth=False).hits
POSITIONS = np.stack([EVENT.x, EVENT.y, EVENT.z], axis=1)
RANDOM = np.random.default_rng(1)
POINT = np.array([300.0, 200.0, 500.0])
MOST_MEMORY, MOST_SECONDS = 400, 30
"""MiB and processor seconds: without a budget it takes gigabytes, or minutes, or both."""


@pytest.fixture(scope="module")
def bundle():
    """The quickest of the shipped bundles: all have the same budget."""
    return read_bundle("hl-lhc")


def test_the_shipped_bundles_have_the_same_budget_but_for_pairs_of_edges(bundle):
    budgets = {name: read_bundle(name).budget for name in ("trackml", "trackml-fast")}
    assert {replace(each, triplets=1000.0) for each in budgets.values()} == {
        replace(bundle.budget, triplets=1000.0)
    }
    assert (
        budgets["trackml"].triplets == 2 * budgets["trackml-fast"].triplets
    )  # its second pass needs more


@pytest.fixture(scope="module", params=available())
def pipeline(request, bundle):
    return open_pipeline(bundle, engine=request.param)


@pytest.fixture(scope="module")
def wedge(bundle):
    """A slice in azimuth of an event: quick on every engine."""
    phi = np.arctan2(POSITIONS[:, 1], POSITIONS[:, 0])
    return hit_features(EVENT.select(np.abs(phi) < 0.05), bundle.features)


def within_micrometre(hits: int) -> np.ndarray:
    return POINT + RANDOM.uniform(-5e-4, 5e-4, (hits, 3))


def of_one_phi(hits: int) -> np.ndarray:
    r = RANDOM.uniform(30, 1000, hits)
    return np.stack([0.8 * r, 0.6 * r, RANDOM.uniform(-2900, 2900, hits)], axis=1)


def line(hits: int) -> np.ndarray:
    return np.linspace(0.05, 1, hits)[:, None] * [600, 300, 1500]


HOSTILE = {
    "500 hits within a micrometre": (
        within_micrometre(500),
        "500 hits lie within 1 mm, at r 360.6",
    ),
    "5,000 of them": (within_micrometre(5000), "5,000 hits lie within 1 mm"),
    "all hits equal": (np.tile(POINT, (500, 1)), "500 hits lie within 1 mm"),
    "x and z swapped": (POSITIONS[:, ::-1], "are axes swapped[?]"),
    "y and z swapped": (POSITIONS[:, [0, 2, 1]], "are axes swapped[?]"),
    "metres": (
        POSITIONS / 1000,
        "x, y, z reach 1.03 mm from the beam line .* are these m, not mm[?]",
    ),
    "centimetres": (POSITIONS / 10, "are these cm, not mm[?]"),
    "micrometres": (POSITIONS * 1000, "are these um, not mm[?]"),
    "far away": (POSITIONS + np.array([0, 0, 1e7]), "are these mm[?]"),
    "at the origin": (np.zeros((100, 3)), "reach 0 mm"),
    "a line": (line(800), "links 800 hits by more than 210,000 edges"),
    "a shorter line": (line(500), "more than 1,000,000 pairs of edges, .* meet in the 500 hits"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_event_is_refused_in_time_and_memory(pipeline, name):
    positions, reason = HOSTILE[name]
    hits = Hits.from_positions(positions)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(BudgetError, match=f"^over budget: .*{reason}"):
        pipeline.find_tracks(hits)
    assert time.process_time() - began < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY * 1024


def test_a_grid_one_phi_and_an_ordinary_event_pass(pipeline):
    side = np.linspace(-600, 600, 8)
    grid = np.stack(np.meshgrid(side, side, 2 * side), axis=-1).reshape(-1, 3)
    for positions in (grid, of_one_phi(500)):
        assert len(pipeline.find_tracks(positions).labels) == len(positions)
    pipeline.bundle.check_features(hit_features(EVENT, pipeline.bundle.features))


def test_the_bounds_are_exact_and_the_same_on_every_engine(bundle, wedge, monkeypatch):
    """The search's edges and the pairs of edges that meet, as the reference counts them."""
    monkeypatch.setattr(budget, "FREE_EDGES", 0)
    monkeypatch.setattr(budget, "FREE_TRIPLETS", 0)
    outputs = open_pipeline(bundle, engine="reference").run(wedge)
    inner, outer = outputs.filtered.edges
    hits = len(wedge)
    pairs = int(np.bincount(outer, minlength=hits) @ np.bincount(inner, minlength=hits))
    for bound, count in (("edges", outputs.candidates.edges.shape[1]), ("triplets", pairs)):
        assert count > 500
        for most in (count, count - 1):
            narrow = replace(bundle, budget=bundle.budget.changed({bound: (most + 0.5) / hits}))
            for name in available():
                pipeline = open_pipeline(narrow, engine=name, precision="float32")
                for run in (pipeline.run, lambda f, p=pipeline: p.run_events([f[:50], f])[1]):
                    if most == count:
                        assert len(run(wedge).tracks) > 0
                    else:
                        with pytest.raises(BudgetError, match=f"{most:,}"):
                            run(wedge)


def test_an_event_is_cut_off_after_its_time(bundle, wedge, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    hasty = replace(bundle, budget=bundle.budget.changed({"seconds": 1e-7}))
    for name in available():
        pipeline = open_pipeline(hasty, engine=name)
        for run in (pipeline.run, pipeline.find_tracks_from_features):
            with pytest.raises(BudgetError, match="was given up after"):
                run(wedge)


def test_hits_outside_can_be_warned_about(bundle):
    strange = hit_features(Hits.from_positions(POSITIONS[:100] / 1000), bundle.features)
    with pytest.raises(BudgetError):
        bundle.check_features(strange)
    with pytest.warns(UserWarning, match="reach .* from the beam line"):
        bundle.with_budget({"outside": "warn"}).check_features(strange)


def test_memory_bounds_what_hits_may_need(bundle):
    assert Budget(memory=64).limits(10**6).edges == 2**20
    assert bundle.budget.limits(200_000).edges == 200 * 200_000 + budget.FREE_EDGES
    with pytest.raises(BudgetError, match="has 300 hits; expected at most 299"):
        Budget(hits=299).check(*np.ones((3, 300), np.float32))


def test_a_few_noisy_hits_and_any_small_event_pass(bundle):
    """Half of the hits may lie anywhere inside: noise, a beam pipe's secondary, a single hit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for positions in ([[30.0, 0.0, 0.0]], [[1.0, 0, 5], [300, 20, -900]], np.empty((0, 3))):
            features = hit_features(Hits.from_positions(np.array(positions)), bundle.features)
            bundle.check_features(features)


def test_tables_of_a_bundle_are_read_as_they_are_written():
    wanted = Budget(Extent((25.0, 1100.0), 3000.0), outside="warn", edges=120.0)
    tables = budget_tables(wanted)
    assert event_budget(tables["extent"], tables["budget"], "other") == wanted
    assert event_budget({}, {}, "trackml").extent == Extent((30.0, 1030.0), 2960.0)
    assert not event_budget({}, {}, "other").extent.known
