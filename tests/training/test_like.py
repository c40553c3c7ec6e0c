"""What a new bundle takes over from another, and the quality of tracks that it learns itself."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import replace

import pytest
from small_training import small_data

from trackserve.bundle import BUNDLE_FILE, read_bundle, shipped_bundle
from trackserve.data import find_events
from trackserve.errors import InputError
from trackserve.training import quality
from trackserve.training.like import model_bundle, with_quality, with_tables_of
from trackserve.training.recipe import TracksRecipe, read_recipe


@pytest.fixture
def shipped(tmp_path):
    """A copy of the default bundle, which has two passes, and its description."""
    copy = shutil.copytree(shipped_bundle(), tmp_path / "trackml")
    return copy, tomllib.loads((copy / BUNDLE_FILE).read_text())


def test_the_fit_and_how_tracks_are_built_are_taken_over():
    recipe = read_recipe("trackml")
    recipe = replace(recipe, tracks=replace(recipe.tracks, min_hits=5))
    model = model_bundle(recipe)
    assert model is not None
    said = tomllib.loads((model.path / BUNDLE_FILE).read_text())
    new = {"name": "new", "tracks": {"min_hits": 5}, "budget": {}, "provenance": {"seed": 7}}
    found = with_tables_of(model, new, recipe)
    for table in ("fit", "budget", "second_pass", "quality"):
        assert found[table] == said[table]
    assert found["tracks"] == {**said["tracks"], "min_hits": 5}
    assert found["name"] == "new"
    assert found["provenance"] == {"seed": 7, "like": f"trackml {model.digest()}"}
    assert list(found)[-1] == "provenance"


def test_a_recipe_that_names_none_takes_nothing_over():
    assert model_bundle(read_recipe("trackml-networks")) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"detector": "mine"},
            "a bundle of the detector 'trackml'; the recipe's detector is 'mine'",
        ),
        (
            {"like": "nowhere"},
            'nowhere is not a folder.*like = "" takes nothing over',
        ),
        ({"like": "hl-lhc", "tracks": TracksRecipe(min_hits=2)}, "min_hits 2; they need .* 3 hits"),
    ],
)
def test_what_nothing_can_be_taken_from_is_refused_at_once(changes, reason):
    with pytest.raises(InputError, match=f"^the recipe's like is .*{reason}"):
        model_bundle(replace(read_recipe("hl-lhc"), **changes))


def test_a_bundle_without_a_fit_has_nothing_to_take_over(tiny_bundle):
    recipe = replace(read_recipe("hl-lhc"), like=str(tiny_bundle.path), detector="made for a test")
    with pytest.raises(InputError, match=r"which has no \[fit\] to take over"):
        model_bundle(recipe)


def test_the_name_of_a_shipped_bundle_goes_before_a_folder(tmp_path, monkeypatch):
    (tmp_path / "hl-lhc").mkdir()
    monkeypatch.chdir(tmp_path)
    model = model_bundle(read_recipe("hl-lhc"))
    assert model is not None
    assert model.digest() == read_bundle(shipped_bundle("hl-lhc")).digest()


def test_each_pass_learns_its_own_quality(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "FEWEST", 1)  # a wedge of an event has few wrong tracks
    folder, before = shipped
    sources = find_events(small_data(tmp_path / "events", events=1))
    after = with_quality(folder, before, sources)
    assert after["quality"] != before["quality"]
    assert after["second_pass"]["quality"] != before["second_pass"]["quality"]
    for each in (before, after):
        del each["quality"], each["second_pass"]["quality"]
    assert after == before


def test_events_that_teach_no_quality_leave_that_of_the_other_bundle(
    shipped, tmp_path, monkeypatch
):
    monkeypatch.setattr(quality, "FEWEST", 10_000)
    folder, before = shipped
    sources = find_events(small_data(tmp_path / "events", events=1))
    with pytest.warns(UserWarning, match="is that of the bundle named `like`") as caught:
        assert with_quality(folder, before, sources) == before
    first, second = (str(warning.message) for warning in caught)
    assert re.match(
        r"the quality of the tracks is that .* tracks found in the validation events", first
    )
    assert second.startswith("the quality of the second pass's tracks is")
