"""What a new bundle takes over from another, and the quality of tracks that it learns itself."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace

import pytest
from small_training import small_data

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.data import find_events
from trackserve.errors import InputError
from trackserve.training.like import learn_quality, like, model_bundle
from trackserve.training.recipe import read_recipe


@pytest.fixture
def shipped(tmp_path):
    """A copy of the default bundle, which has two passes, and its description."""
    copy = shutil.copytree(read_bundle().path, tmp_path / "trackml")
    return copy, tomllib.loads((copy / BUNDLE_FILE).read_text())


def test_the_fit_and_how_tracks_are_built_are_taken_over():
    recipe = read_recipe("trackml")
    recipe = replace(recipe, tracks=replace(recipe.tracks, min_hits=5))
    model = model_bundle(recipe)
    assert model is not None
    said = tomllib.loads((model.path / BUNDLE_FILE).read_text())
    new = {"name": "new", "tracks": {"min_hits": 5}, "budget": {}, "provenance": {"seed": 7}}
    found = like(model, new, recipe)
    for table in ("fit", "budget", "second_pass", "quality"):
        assert found[table] == said[table]
    assert found["tracks"] == {**said["tracks"], "min_hits": 5}
    assert found["name"] == "new"
    assert found["provenance"] == {"seed": 7, "like": f"trackml {model.digest()}"}
    assert list(found)[-1] == "provenance"


def test_a_recipe_that_names_none_takes_nothing_over():
    assert model_bundle(read_recipe("trackml-networks")) is None


def test_a_bundle_of_another_detector_is_refused():
    recipe = replace(read_recipe("hl-lhc"), detector="mine")
    with pytest.raises(InputError, match=r"detector is 'mine', that of the bundle 'hl-lhc'.*like"):
        model_bundle(recipe)


def test_each_pass_learns_its_own_quality(shipped, tmp_path):
    folder, before = shipped
    sources = find_events(small_data(tmp_path / "events", events=1))
    after = learn_quality(folder, before, sources)
    assert after["quality"] != before["quality"]
    assert after["second_pass"]["quality"] != before["second_pass"]["quality"]
    for each in (before, after):
        del each["quality"], each["second_pass"]["quality"]
    assert after == before


def test_events_that_teach_no_quality_leave_that_of_the_other_bundle(shipped):
    folder, before = shipped
    with pytest.warns(UserWarning, match="stays that of the bundle named `like`: there are no ev"):
        assert learn_quality(folder, before, []) == before
