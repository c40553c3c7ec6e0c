"""The public face: what ``import trackserve`` offers, that it is light, and that it works."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import trackserve
from trackserve.columns import as_hits
from trackserve.errors import InputError

PUBLIC = ["AsyncClient", "Client", "Hits", "Tracks", "find_tracks", "open_pipeline", "read_events"]


def test_the_public_names_are_these():
    assert trackserve.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(trackserve, name).__module__.startswith("trackserve.")
        assert name in dir(trackserve)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'find_track'"):
        trackserve.find_track  # noqa: B018


def test_importing_it_loads_nothing_but_the_standard_library():
    code = "import sys; before = set(sys.modules); import trackserve; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded <= {"trackserve", *sys.stdlib_module_names}


HITS = {"x": np.array([30.0, 70.0]), "y": np.array([1.0, 2.0]), "z": np.array([5.0, 9.0])}


class Frame:
    """As data frames of several libraries look: names in ``columns``, a column by its name."""

    columns = ["event", "z", "y", "x", "energy"]  # noqa: RUF012 - a list, as polars has

    def __getitem__(self, name: str) -> object:
        return HITS.get(name, ["anything", "else"])


@pytest.mark.parametrize(
    "given",
    [
        HITS,
        {**HITS, "name": ["a", "b"]},
        Frame(),
        np.rec.fromarrays(list(HITS.values()), names=list(HITS)),
        np.stack(list(HITS.values()), axis=1),
        np.stack(list(HITS.values()), axis=1).tolist(),
    ],
    ids=["dict", "dict with more", "frame", "structured", "array", "list"],
)
def test_hits_come_from_what_people_have(given):
    hits = as_hits(given)
    for name, expected in HITS.items():
        np.testing.assert_array_equal(getattr(hits, name), expected.astype(np.float32))
    np.testing.assert_array_equal(hits.hit_id, [0, 1])


def test_hits_come_from_awkward_arrays():
    awkward = pytest.importorskip("awkward")
    for given in (
        awkward.Array({**HITS, "name": ["a", "b"]}),
        awkward.Record({**HITS, "event": 7}),
    ):
        hits = as_hits(given)
        for name, expected in HITS.items():
            np.testing.assert_array_equal(getattr(hits, name), expected.astype(np.float32))


def test_ids_modules_and_clusters_are_taken_along():
    more = {name: [3, 4] for name in ("hit_id", "volume_id", "layer_id", "module_id", "cells")}
    hits = as_hits({**HITS, **more})
    assert hits.hit_id.tolist() == [3, 4]
    assert hits.modules is not None
    assert hits.modules.layer_id.tolist() == [3, 4]
    assert hits.clusters is None  # cells alone are no cluster


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": [1.0], "y": [1.0], "zz": [1.0]}, "no column 'z'; they have x, y, zz; is it 'zz'"),
        ({"x": [1.0], "y": [1.0], "z": [1.0, 2.0]}, "'z' of the hits has 2 rows; 'x' has 1"),
        ({"x": ["a"], "y": [1.0], "z": [1.0]}, "'x' of the hits is .*; expected numbers"),
        ({"x": [np.nan], "y": [1.0], "z": [1.0]}, "hit row 0: x is nan"),
        (np.zeros((3, 4)), r"float64 \[3, 4\]; expected numbers of shape \[N, 3\]"),
    ],
)
def test_what_is_missing_or_wrong_is_named(given, message):
    with pytest.raises(InputError, match=message):
        as_hits(given)
