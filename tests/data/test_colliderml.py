from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trackserve.data import find_events, read_events
from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

# Two events: three hits of two particles (0 is one), and one hit of a particle that isn't listed.
HITS: dict[str, list[Any]] = {
    "event_id": [11, 12],
    "x": [[10.0, 20.0, 30.0], [1.0]],
    "y": [[0.0, 1.0, 2.0], [2.0]],
    "z": [[5.0, 6.0, 7.0], [3.0]],
    "particle_id": [[0, 4, 0], [9]],
    "volume_id": [[16, 16, 23], [28]],
    "layer_id": [[2, 4, 2], [2]],
    "surface_id": [[101, 102, 103], [7]],
    "detector": [[1, 1, 4], [7]],
}
PARTICLES: dict[str, list[Any]] = {
    "event_id": [12, 11],
    "particle_id": [[1], [0, 4]],
    **{name: [[0.0], [0.5, 0.25]] for name in ("vx", "vy", "vz")},
    **{name: [[1.0], [3.0, 4.0]] for name in ("px", "py", "pz")},
    "charge": [[1.0], [1.0, -1.0]],
    "primary": [[True], [True, False]],
}
TYPES = {
    "particle_id": "uint64",
    "volume_id": "uint8",
    "layer_id": "uint16",
    "surface_id": "uint32",
}
NAME = "train-00000-of-00001.parquet"


def table(columns: dict[str, list[Any]]) -> Any:
    def kind(name: str) -> Any:
        if name == "event_id":
            return pa.uint32()
        if name == "primary":
            return pa.list_(pa.bool_())
        return pa.list_(pa.type_for_alias(TYPES.get(name, "float32")))

    return pa.table({n: pa.array(values, kind(n)) for n, values in columns.items()})


def write(folder: Path, hits: dict[str, list[Any]] = HITS) -> Path:
    for name, columns in (("tracker_hits", hits), ("particles", PARTICLES)):
        (folder / f"ttbar_pu0_{name}").mkdir(exist_ok=True)
        path = folder / f"ttbar_pu0_{name}" / NAME
        parquet.write_table(table(columns), path, row_group_size=1)
    return folder


@pytest.mark.parametrize("given", ["", "ttbar_pu0_tracker_hits", f"ttbar_pu0_tracker_hits/{NAME}"])
def test_events_of_a_release(tmp_path: Path, given: str) -> None:
    first, second = read_events(write(tmp_path) / given)
    assert (first.event_id, second.event_id) == (11, 12)
    assert first.hits.hit_id.tolist() == [0, 1, 2]
    assert first.hits.x.tolist() == [10, 20, 30]
    assert first.hits.modules is not None
    assert first.hits.modules.module_id.tolist() == [101, 102, 103]
    assert first.truth is not None
    assert first.truth.particle_id.tolist() == [1, 5, 1]
    assert first.truth.particles.particle_id.tolist() == [1, 5]
    assert first.truth.particles.primary.tolist() == [True, False]
    np.testing.assert_allclose(first.truth.particles.pt, np.hypot([3, 4], [3, 4]))
    assert second.truth is not None
    assert second.truth.particle_id.tolist() == [0]


def test_the_names_of_older_releases(tmp_path: Path) -> None:
    for kind, columns in (("reco.tracker_hits", HITS), ("truth.particles", PARTICLES)):
        name = f"hard_scatter.ttbar.v1.{kind}.events0-999.parquet"
        parquet.write_table(table(columns), tmp_path / name)
    assert [e.truth is not None for e in read_events(tmp_path)] == [True, True]


def test_hits_alone(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ttbar_pu0_particles" / NAME).unlink()
    first, _ = find_events(tmp_path)
    assert len(first.read(truth=False).hits) == 3
    with pytest.raises(InputError, match="event 11 has no particles file; it has tracker_hits"):
        first.read()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    first, _ = find_events(write(tmp_path, {**HITS, "y": [[0.0, 1.0], [2.0]]}))
    with pytest.raises(InputError, match="row 1 has lists of different lengths"):
        first.read()
    first, _ = find_events(write(tmp_path, {**HITS, "y": [[0.0, 1.0, float("nan")], [2.0]]}))
    with pytest.raises(InputError, match="y holds other than finite numbers"):
        first.read()
    first, _ = find_events(write(tmp_path, {n: v for n, v in HITS.items() if n != "z"}))
    with pytest.raises(InputError, match="has no column z; it has event_id, x, y"):
        first.read()
    with pytest.raises(InputError, match="has no column event_id, so it isn't ColliderML's"):
        find_events(write(tmp_path, {n: v for n, v in HITS.items() if n != "event_id"}))
    path = tmp_path / "ttbar_pu0_tracker_hits" / NAME
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="is not a Parquet file or is damaged"):
        find_events(tmp_path)
