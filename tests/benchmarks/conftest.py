"""The benchmarks are programs beside the package; their tests import them from their folder."""

import sys
from pathlib import Path

for folder in ("benchmarks", "tests/evaluate"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
