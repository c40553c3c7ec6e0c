"""Targets of one's own: what a condition chooses, and what is no condition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from trackserve.errors import InputError
from trackserve.evaluate.targets import COLUMNS, OwnTargets

PARTICLES = {
    **{name: np.zeros(5) for name in ("phi", "vx", "vy", "vz", "px", "py", "pz")},
    "pt": np.array([0.3, 0.6, 0.6, 2.0, 9.0]),
    "eta": np.array([0.0, -2.5, 1.0, -3.5, np.inf]),
    "production_radius": np.array([0.0, 2.0, 20.0, 30.0, 5.0]),
    "q": np.array([1.0, -1.0, 1.0, 0.0, -1.0]),
    "primary": np.array([True, False, False, True, True]),
}
HITS = np.array([7, 5, 6, 9, 0])


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("pt > 0.5 and 2 < production_radius < 30 and hits >= 6", [2]),
        ("pt > 0.5", [1, 2, 3]),
        ("not (pt > 0.5 or primary == 1)", []),
        ("abs(eta) < 3 and charge != 0", [0, 1, 2]),
        ("-eta > 2 * pt + 1", [1]),
        ("primary == 0", [1, 2]),
        ("hits / (hits - 7) > 0", [0, 3]),
        ("hits == 7 or pt == 2", [0, 3]),
        ("pt <= 0.3", [0]),
    ],
)
def test_the_particles_that_meet_a_condition_are_chosen(condition, rows):
    targets = OwnTargets(condition)
    chosen = targets.select(SimpleNamespace(particles=SimpleNamespace(**PARTICLES)), HITS)
    assert np.flatnonzero(chosen).tolist() == rows  # the last one made no hit
    assert condition in targets.definition


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("", "is no condition"),
        ("pt >", "is no condition"),
        ("momentum > 1", f"have no 'momentum'; they have {', '.join(COLUMNS)}"),
        ("Pt > 1", "is it pt?"),
        ("pt", "is a number; expected a comparison"),
        ("pt and hits", "is a number; expected a comparison"),
        ("(pt > 1) + 2 > 0", "is true or false; expected a number"),
        ("pt > 'a'", "can't be part of a condition"),
        ("pt > True", "can't be part of a condition"),
        ("pt ** 9 ** 9 > 1", "can't be part of a condition"),
        ("__import__('os').system('true')", "can't be part of a condition"),
        ("pt.__class__ > 1", "can't be part of a condition"),
        ("(lambda: 1)() > 0", "can't be part of a condition"),
        ("pt in [1]", "can't be part of a condition"),
        ("[p for p in pt]", "can't be part of a condition"),
        ("pt > 1" + "0" * 400, "is no condition"),
        ("pt > " + "-" * 900 + "1", "is no condition"),
        ("pt > 1 " * 300, "expected at most 1000"),
    ],
)
def test_what_is_no_condition_is_refused(condition, sentence):
    with pytest.raises(InputError) as raised:
        OwnTargets(condition)
    assert sentence in str(raised.value)
