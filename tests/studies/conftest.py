"""The studies share one small event."""

import sys
from pathlib import Path

import pytest

from wedge import write_wedge

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))


@pytest.fixture(scope="session")
def wedge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one event of some 1,900 hits."""
    folder = tmp_path_factory.mktemp("wedge")
    write_wedge(folder, 0, half=0.3)
    return folder
