"""What a client shows: files that aren't there are named, paths may be texts."""

from __future__ import annotations

import pytest

from trackserve.client.credentials import Credentials
from trackserve.errors import InputError


@pytest.mark.parametrize("use", [lambda c: c.grpc_options("grpcs"), Credentials.context])
def test_a_file_that_is_not_there_is_named(use):
    with pytest.raises(InputError, match=r"ca\.pem is not a file"):
        use(Credentials("no-folder/ca.pem"))


def test_a_path_may_be_a_text(tmp_path):
    (tmp_path / "ca.pem").touch()
    given = Credentials(str(tmp_path / "ca.pem")).grpc_options("grpcs")
    assert given == {"ssl": True, "root_certificates": str(tmp_path / "ca.pem")}
