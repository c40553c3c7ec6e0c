"""Sockets in a folder: who is connected to them."""

import socket

import pytest

from trackserve.serving.sockets import connected


@pytest.mark.parametrize("name", ["http", "grpc:8001", "with a space"])
def test_a_connection_is_seen_until_both_ends_are_closed(tmp_path, name):
    path, other = tmp_path / name, tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        assert not connected(path, other)
        client.connect(str(path))
        with listener.accept()[0]:
            assert connected(path)
            assert connected(other, path)
            assert not connected(other)
            client.close()
            assert connected(path)  # the server may still be at it
        assert not connected(path)
