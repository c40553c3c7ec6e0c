"""Files that are damaged, ambiguous or made to cost memory are refused with a sentence."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from trackserve.data import find_events, sources, tables
from trackserve.data.tables import write_table
from trackserve.errors import InputError

HITS = "hit_id,x,y,z,volume_id,layer_id,module_id\n1,1.0,2.0,3.0,7,2,1\n2,4.0,5.0,6.0,7,2,1\n"


def read(folder):
    (source,) = find_events(folder)
    return source.read(truth=False).hits


def refusal(folder) -> str:
    with pytest.raises(InputError) as raised:
        read(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"], ids=["CR", "CRLF", "LF"])
def test_lines_may_end_in_any_way(tmp_path, end):
    (tmp_path / "event000000001-hits.csv").write_bytes(HITS.replace("\n", end).encode())
    assert read(tmp_path).x.tolist() == [1.0, 4.0]


def test_a_column_that_is_there_twice_is_named(tmp_path):
    text = HITS.replace("hit_id,x,y", "hit_id,x,x")
    (tmp_path / "event000000001-hits.csv").write_text(text)
    assert "has 2 columns named x; expected one" in refusal(tmp_path)


def test_one_table_in_two_files_is_refused(tmp_path):
    (tmp_path / "event000000001-hits.csv").write_text(HITS)
    (tmp_path / "event000000001-hits.csv.gz").write_bytes(gzip.compress(HITS.encode()))
    assert "are the same table; keep one of them" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_member_of_a_zip_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "events.zip", "w") as archive:
        archive.writestr("event000000001-hits.csv", HITS)
        archive.writestr("event000000001-hits.csv", HITS)
    assert "are the same table; keep one of them" in refusal(tmp_path / "events.zip")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "event000000001-hits.csv")
    assert "not a regular file" in refusal(tmp_path)


@pytest.mark.parametrize("where", ["gzip", "zip"])
def test_what_grows_without_end_when_decompressed_is_refused(tmp_path, monkeypatch, where):
    monkeypatch.setattr(sources, "MOST_BYTES", 10_000)
    text = HITS + "3,1,1,1,1,1,1\n" * 100_000
    if where == "gzip":
        (tmp_path / "event000000001-hits.csv.gz").write_bytes(gzip.compress(text.encode()))
        place = tmp_path
    else:
        place = tmp_path / "events.zip"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("event000000001-hits.csv", text)
    assert "is larger than" in refusal(place)


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "event000000001-hits.parquet"
    rng = np.random.default_rng(0)
    columns = {"hit_id": np.arange(5000), **{c: rng.normal(size=5000).astype("f4") for c in "xyz"}}
    write_table(path, columns)
    return path


def test_a_parquet_file_of_more_rows_than_an_event_is_refused(parquet, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROWS", 4999)
    assert "declares 5,000 rows; expected at most 4,999" in refusal(parquet.parent)


def test_damaged_parquet_files_end_no_process(parquet):
    """Each of 60 damaged files is read or refused, in one process that ends well."""
    code = """
import pathlib, random, sys
from trackserve.data import find_events
from trackserve.errors import InputError
path, whole = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]).read_bytes()
refused = 0
for seed in range(60):
    rng, content = random.Random(seed), bytearray(whole)
    for _ in range(4):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content[: rng.randrange(len(content))] if seed % 3 == 0 else content)
    try:
        find_events(path)[0].read(truth=False)
    except InputError as error:
        assert "\\n" not in str(error), error
        refused += 1
assert refused > 20, refused
"""
    run = subprocess.run(
        [sys.executable, "-c", code, parquet], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_zip_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "events.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("event000000001-hits.csv", HITS)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 200  # the version that is needed to extract it
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"events.zip cannot be read: zip file version 20"):
        find_events(path)
