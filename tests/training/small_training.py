"""A training small enough for a test: a wedge of a simulated event under several numbers, tiny networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.training.recipe import Recipe, read_recipe
from wedge import write_wedge

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
base = "none"
name = "small"
detector = "trackml"
seed = 3
features.columns = ["r", "phi", "z"]
features.scales = [1000.0, 3.0, 1000.0]
doublet_cuts = { slope = 4e-4, dphi = 0.0015, z0 = 180.0, dcot = 0.03 }
embedding = { width = 16, layers = 2, dimension = 4, updates = UPDATES, queries = 200, negatives = 50, neighbour_limit = 20 }
filter = { width = 8, updates = UPDATES, pruned = 4, pruned_updates = UPDATES, edges = 5000 }
triplets = { width = 8, updates = UPDATES, pruned = 4, pruned_updates = UPDATES }
gnn = { width = 8, steps = 2, updates = UPDATES, edges = 5000 }
tracks.cuts = [0.3, 0.6]
tracks.fakes = 1.0
"""


def small_recipe(folder: Path, *, updates: int = 6, old: str = "", new: str = "") -> Recipe:
    """The recipe of a small training, with ``old`` replaced by ``new`` in its text."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.replace("UPDATES", str(updates)).replace(old, new, 1))
    return read_recipe(path)


def small_data(folder: Path, *, events: int = 4, truth: bool = True) -> Path:
    """A folder with a wedge of the shipped event, 1,900 hits, under several numbers."""
    for number in range(events):
        write_wedge(folder, number, half=0.3)
        if not truth:
            (folder / f"event{number:09d}-truth.csv").unlink()
    return folder
