"""Files are written whole or not at all, and only regular files are replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from trackserve.files import whole, whole_folder, write_text


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "out.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), whole(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.txt"
    write_text(path, "old")
    with whole(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_link_stays_a_link_and_the_file_keeps_its_mode(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "tracks")
    reader.join()
    assert read == ["tracks"]
    assert pipe.is_fifo()


def test_a_device_is_written_to_and_not_replaced():
    write_text(Path("/dev/null"), "tracks")
    assert Path("/dev/null").is_char_device()


def test_a_folder_takes_the_place_of_another_when_it_is_whole(tmp_path):
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "old").touch()
    with pytest.raises(RuntimeError), whole_folder(place):
        raise RuntimeError
    assert [path.name for path in place.iterdir()] == ["old"]
    with whole_folder(place) as beside:
        (beside / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [place]
