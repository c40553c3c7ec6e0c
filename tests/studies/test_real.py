from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("acts")
pytest.importorskip("matplotlib")

from studies.physics import real
from studies.physics.changes import CHANGES
from studies.physics.real_tables import REAL
from trackserve.data import find_events
from trackserve.engines.reference import ReferencePipeline
from trackserve.evaluate.report import evaluate, pixels_of
from wedge import SHIPPED, write_wedge

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.event import Event


@pytest.fixture(scope="module")
def event() -> Event:
    (source,) = find_events(SHIPPED)
    return source.read()


@pytest.mark.parametrize(
    ("name", "share"), [("2 % of the hits missing", 0.02), ("5 % of the hits missing", 0.05)]
)
def test_hits_are_lost_at_random_with_their_truth(event: Event, name: str, share: float) -> None:
    changed = CHANGES[name](event)
    assert 1 - len(changed.hits) / len(event.hits) == pytest.approx(share, rel=0.2)
    rows = np.searchsorted(event.hits.hit_id, changed.hits.hit_id)
    assert event.truth is not None
    assert changed.truth is not None
    np.testing.assert_array_equal(changed.truth.particle_id, event.truth.particle_id[rows])
    np.testing.assert_array_equal(CHANGES[name](event).hits.hit_id, changed.hits.hit_id)


def test_a_dead_module_has_no_hit_left_and_others_have_all(event: Event) -> None:
    changed = CHANGES["5 % dead modules"](event)

    def modules(of: Event) -> dict[tuple[int, ...], int]:
        assert of.hits.modules is not None
        ids = of.hits.modules
        rows = np.stack([ids.volume_id, ids.layer_id, ids.module_id], axis=1).astype(int)
        keys, counts = np.unique(rows, axis=0, return_counts=True)
        return {tuple(key): int(count) for key, count in zip(keys.tolist(), counts, strict=True)}

    before, after = modules(event), modules(changed)
    assert after.items() <= before.items()
    assert 1 - len(after) / len(before) == pytest.approx(0.05, abs=0.02)


@pytest.mark.filterwarnings("ignore:the reference engine runs")  # the tiny bundle's networks
def test_a_bundle_is_judged_as_evaluate_does(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = tmp_path / "events", tmp_path / "real.json"
    write_wedge(folder, 1, half=0.05)
    where = [str(folder), "--simulated", str(folder), "--moved", str(folder)]
    how = ["--bundles", str(tiny_bundle.path), "--acts", "0", "--json", str(record)]
    monkeypatch.setattr(sys, "argv", ["real", *where, *how, "--work", str(tmp_path / "work")])
    real.main()

    written = json.loads(record.read_text())
    found = written["bundles"][str(tiny_bundle.path)]
    assert found["digest"] == tiny_bundle.digest()
    pipeline = ReferencePipeline(tiny_bundle)
    whole = [source.read() for source in find_events(folder)]
    for events, numbers in (
        (whole, found["real"]),
        ([pixels_of(e) for e in whole], found["real"]["pixels"]),
    ):
        expected = evaluate(events, pipeline.find_tracks)
        assert numbers["headline"]["fake_rate_counts"] == [
            expected.fakes.passed,
            expected.fakes.total,
        ]
        assert numbers["hits_per_event"] == expected.hits
    assert "hl-lhc" not in written["bundles"]
    for make in REAL.values():
        assert make(written)
