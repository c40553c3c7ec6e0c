from __future__ import annotations

from dataclasses import replace

import pytest
from small_training import RECIPE, small_recipe

from trackserve.errors import InputError
from trackserve.training.recipe import EmbeddingRecipe, Recipe, read_recipe, recipe_changes


def test_the_shipped_recipe():
    recipe = read_recipe("hl-lhc")
    assert recipe.name == "hl-lhc"
    assert recipe.features.columns == ("r", "phi", "z")


def test_settings_are_read_and_others_keep_their_defaults(tmp_path):
    recipe = small_recipe(tmp_path)
    assert recipe.features.scales == (1000.0, 3.0, 1000.0)
    assert recipe.doublet_cuts.z0 == 180
    assert recipe.embedding.width == 16
    assert recipe.embedding.wedge == EmbeddingRecipe().wedge
    assert recipe.tracks.cuts == (0.3, 0.6)
    assert recipe.min_pt == Recipe().min_pt


def test_a_whole_number_may_stand_for_a_float(tmp_path):
    recipe = small_recipe(tmp_path, old="seed = 3", new="seed = 3\nmin_pt = 1")
    assert (recipe.min_pt, type(recipe.min_pt)) == (1.0, float)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("seed", "sed", r"unknown setting 'sed'; did you mean 'seed'\?"),
        ("queries", "querys", r"\[embedding\]: unknown setting 'querys'; did you mean 'queries'\?"),
        ("seed", "zzz", "unknown setting 'zzz'; known are name, detector, seed, "),
        ("seed = 3", 'seed = "3"', "seed is '3'; expected int"),
        ("seed = 3", "seed = true", "seed is True; expected int"),
        ("width = 16", "width = 16.5", r"\[embedding\]: width is 16.5; expected int"),
        ("width = 16", "width = [16]", r"\[embedding\]: width is \[16\]; expected int"),
        ("width = 16", "width = 0", r"\[embedding\]: .*width is 0|width is 0; expected at least 1"),
        ("pruned = 4", "pruned = 9", "pruned is 9; expected at most the width, 8"),
        ("queries = 200", "efficiency = 1.5", "efficiency is 1.5; expected a share"),
        ("queries = 200", "learning_rate = -1", "learning_rate is -1.0; expected a finite"),
        ("queries = 200", "learning_rate = nan", "learning_rate is nan; expected a finite"),
        ("tracks.cuts = [0.3, 0.6]", "tracks.cuts = []", r"cuts is \[\]; expected a list"),
        ("tracks.cuts = [0.3, 0.6]", 'tracks.cuts = ["a"]', "cuts is 'a'; expected float"),
        (
            "tracks.cuts = [0.3, 0.6]",
            'tracks.method = "magic"',
            "method is 'magic'; expected 'components' or 'walk'",
        ),
        (
            "tracks.cuts = [0.3, 0.6]\ntracks.fakes = 1.0",
            "tracks = 5",
            r"\[tracks\] is 5; expected a table",
        ),
        ('["r", "phi", "z"]', '"r"', "columns is 'r'; expected a list"),
        ('["r", "phi", "z"]', '["r", "phi"]', "2 feature columns with scales"),
        ('["r", "phi", "z"]', '["x", "y", "z"]', "features are x, y, z; expected r, phi, z and"),
        ("z0 = 180.0", "z0 = -1.0", "expected positive slope and z0"),
        ("seed = 3", "seed = ", "is not valid TOML"),
        ('features.columns = ["r", "phi", "z"]\n', "", "missing 1 required .*'columns'"),
    ],
)
def test_a_recipe_that_cannot_be_used(tmp_path, old, new, reason):
    assert old in RECIPE
    with pytest.raises(InputError, match=reason) as raised:
        small_recipe(tmp_path, old=old, new=new)
    assert str(raised.value).startswith(str(tmp_path / "recipe.toml"))


def test_a_recipe_that_is_not_there():
    with pytest.raises(
        InputError, match="no recipe 'atlas'; give a TOML file or one of: hl-lhc, trackml"
    ):
        read_recipe("atlas")


def test_a_recipe_inherits_what_it_does_not_say(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[gnn]\nwidth = 64\n')
    shipped = read_recipe("hl-lhc")
    assert read_recipe(path) == replace(shipped, name="mine", gnn=replace(shipped.gnn, width=64))
    assert recipe_changes(path) == ("hl-lhc", ["name mine (hl-lhc)", "gnn.width 64 (32)"])
    assert recipe_changes("hl-lhc") == (None, [])


def test_a_recipe_inherits_from_the_base_that_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "trackml"\nfeatures.scales = [1.0, 2.0, 3.0]\n')
    soft = read_recipe("trackml")
    assert read_recipe(path).doublet_cuts == soft.doublet_cuts
    assert read_recipe(path).features.columns == soft.features.columns
    _, (change,) = recipe_changes(path)
    assert change.startswith("features.scales [1.0, 2.0, 3.0] ([1000.0, ")
    path.write_text('base = "atlas"')
    with pytest.raises(InputError, match=r"base is 'atlas'; expected 'none' or one of: .*trackml"):
        read_recipe(path)
