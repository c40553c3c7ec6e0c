"""Tables that grow event by event read back as they were written, in every format."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pyarrow.parquet
import pytest

from trackserve.data.columnar import LIST, SUFFIXES, suffix_of, table_writer
from trackserve.errors import InputError, MissingDependencyError

KINDS = {"event_id": np.int64, "pt": np.float32, "hit_ids": LIST}
PIECES = [
    {
        "event_id": np.array([7, 7]),
        "pt": np.float32([0.1, np.nan]),
        "hit_ids": (np.array([5, 3, 9]), np.array([1, 2])),
    },
    {"event_id": np.empty(0, np.int64), "pt": np.float32([]), "hit_ids": (np.empty(0, np.int64),) * 2},
    {
        "event_id": np.array([2**40]),
        "pt": np.float32([1e30]),
        "hit_ids": (np.array([2**40]), np.array([1])),
    },
]  # fmt: skip
ROWS = [(7, 0.1, [5]), (7, None, [3, 9]), (2**40, 1e30, [2**40])]


def rows_of(path):
    """Read a table back without our own code: event_id, pt (None for nan), hits."""
    if path.suffix == ".parquet":
        rows = [tuple(row.values()) for row in pyarrow.parquet.read_table(path).to_pylist()]
    elif path.suffix == ".root":
        uproot = pytest.importorskip("uproot")
        with uproot.open(path) as file:
            arrays = file["tracks"].arrays(list(KINDS))
        rows = [(row["event_id"], row["pt"], row["hit_ids"]) for row in arrays.to_list()]
    else:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header, *lines = text.decode().splitlines()
        assert header == "event_id,pt"  # no lists
        cells = [line.split(",") for line in lines]
        rows = [
            (int(event), float(pt), hits)
            for (event, pt), (*_, hits) in zip(cells, ROWS, strict=True)
        ]
    return [(event, None if np.isnan(pt) else np.float32(pt), hits) for event, pt, hits in rows]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_is_read_back_as_it_was_written(tmp_path, suffix):
    if suffix == ".root":
        pytest.importorskip("uproot")
    path = tmp_path / f"tracks{suffix}"
    with table_writer(path, "tracks", KINDS) as writer:
        for piece in PIECES:
            writer.write(piece)
    assert rows_of(path) == [
        (e, pt if pt is None else np.float32(pt), hits) for e, pt, hits in ROWS
    ]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_the_old_file(tmp_path, suffix):
    if suffix == ".root":
        pytest.importorskip("uproot")
    path = tmp_path / f"tracks{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(InputError), table_writer(path, "tracks", KINDS) as writer:
        writer.write(PIECES[0])
        raise InputError
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "name", ["tracks", "tracks.txt", "tracks.gz", "tracks.h5", ".csv", "tracks.csv.zip"]
)
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"ends in none of \.csv, \.csv\.gz, \.parquet, \.root"):
        suffix_of(tmp_path / name)


@pytest.mark.parametrize(("suffix", "module"), [(".parquet", "pyarrow"), (".root", "uproot")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, suffix, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'trackserve\[{suffix[1:]}\]'"):
        suffix_of(tmp_path / f"tracks{suffix}")
