"""A real training, made small: events in, a bundle out that loads, runs and knows where it is from."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import onnx
import pytest
from small_training import small_data, small_recipe

from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError
from trackserve.pipeline.check import check_answers
from trackserve.training import train as module
from trackserve.training.events import split
from trackserve.training.export import export_network
from trackserve.training.filter import FilterLoss
from trackserve.training.gnn import GnnLoss
from trackserve.training.provenance import simulated
from trackserve.training.train import Training, find_device, train
from trackserve.training.triplets import TripletLoss


@pytest.fixture(scope="module", autouse=True)
def exported_once():
    """Export equal networks once, which takes most of a small training's time."""
    known: dict[str, bytes] = {}

    def export(network, path, **rest):
        weights = hashlib.sha256(repr(rest["description"]).encode())
        for name, tensor in network.state_dict().items():
            weights.update(name.encode() + tensor.cpu().numpy().tobytes())
        if (key := weights.hexdigest()) not in known:
            export_network(network, path, **rest)
            known[key] = path.read_bytes()
        path.write_bytes(known[key])

    with mock.patch.object(module, "export_network", export):
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory, exported_once):
    """A folder with data, a recipe and the bundle of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("training")
    train([small_data(folder / "data")], folder / "bundle", small_recipe(folder), device="cpu")
    return folder


def test_the_bundle_loads_and_runs(place):
    bundle = read_bundle(place / "bundle")
    check_answers(bundle)
    source = find_events(place / "data")[0]
    hits = source.read().hits
    tracks = ReferencePipeline(bundle).find_tracks(hits)
    assert len(tracks) > 10
    assert len(tracks.labels) == len(hits)
    assert sorted(p.name for p in bundle.path.iterdir()) == [
        *("bundle.toml", "embedding.onnx", "filter.onnx", "gnn.onnx", "triplets.onnx")
    ]


def test_the_seed_of_simulated_events_is_recorded(tmp_path):
    made, plain = tmp_path / "made", tmp_path / "plain"
    for folder in (made, plain):
        folder.mkdir()
    (made / "simulation.json").write_text('{"settings": {"seed": 101, "pileup": 136.0}}')
    assert simulated([made, plain]) == {"made": {"seed": 101, "pileup": 136.0}}


def test_the_bundle_knows_where_it_is_from(place):
    bundle = read_bundle(place / "bundle")
    says = bundle.provenance
    assert (bundle.name, bundle.detector) == ("small", "trackml")
    assert says["data"] == ["data"]
    assert "simulated" not in says
    assert says["events"] == {"train": 2, "validation": 1, "test": 1}
    assert says["seed"] == says["recipe"]["seed"] == 3
    assert says["recipe"]["gnn"]["steps"] == 2
    assert says["recipe"]["filter"]["pruned"] == says["recipe"]["triplets"]["pruned"] == 4
    assert {"trackserve", "numpy", "onnx", "onnxruntime", "torch"} <= says["versions"].keys()
    physics = says["physics"]["data"]
    assert physics["events"] == 1
    assert 0 < physics["headline_efficiency"] < 1
    assert physics["neighbours_edges_per_event"] >= physics["filter_edges_per_event"] > 0
    assert str(place) not in (bundle.path / "bundle.toml").read_text()


def test_radius_and_cut_keep_the_share_that_was_asked_for(place):
    """One event under all numbers: the validation event is the event that the physics is of."""
    bundle = read_bundle(place / "bundle")
    chosen = json.loads((place / "bundle.training/chosen.json").read_text())
    assert bundle.radius == chosen["radius"] > 0
    assert bundle.filter_cut == chosen["served_filter_cut"] <= chosen["filter_cut"]
    assert bundle.triplets is not None
    assert bundle.triplets.cut == chosen["served_triplet_cut"] <= chosen["triplet_cut"]
    assert bundle.track_builder.cut == chosen["track_cut"]
    assert chosen["track_cut"] in {0.3, 0.6}


def test_the_networks_for_8_bits_know_their_ranges(place):
    for name, layers in (("filter", 3), ("triplets", 2)):
        (entry,) = onnx.load(place / f"bundle/{name}.onnx").metadata_props
        ranges = np.array(json.loads(entry.value)["ranges"])
        assert ranges.shape == (layers, 4)
        assert (ranges > 0).all()


def test_every_update_is_logged(place):
    lines = (place / "bundle.training/metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert [(m["network"], m["step"]) for m in logged] == [
        (network, step)
        for network in (
            *("embedding", "filter", "filter-pruned", "triplets", "triplets-pruned", "gnn"),
        )
        for step in range(6)
    ]
    assert all(np.isfinite(m["loss"]) for m in logged)


def test_a_training_that_is_killed_goes_on_as_if_nothing_had_happened(place, monkeypatch):
    """Killed while the pruned filter learns, before the pruned triplet classifier does, in the GNN."""
    recipe, again = small_recipe(place), place / "again"
    for loss, call in ((FilterLoss, 10), (TripletLoss, 7), (GnnLoss, 4)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loss, "__call__", _killed(loss.__call__, call))
            train([place / "data"], again, recipe)
        assert not again.exists()
    train([place / "data"], again, recipe)
    assert read_bundle(again).digest() == read_bundle(place / "bundle").digest()


def _killed(whole, last):
    """A loss that is interrupted at its ``last`` call."""
    calls = iter(range(1, last))

    def called(self, event, generator):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return whole(self, event, generator)

    return called


def test_what_is_shipped_is_pruned(place):
    for kind in ("filter", "triplets"):
        (entry,) = onnx.load(place / f"bundle/{kind}.onnx").metadata_props
        assert json.loads(entry.value)["width"] == 4


def test_another_recipe_in_the_same_place_is_refused(place):
    before = read_bundle(place / "bundle").digest()
    recipe = small_recipe(place, old="seed = 3", new="seed = 4")
    with pytest.raises(InputError, match="holds a training of other events or another recipe"):
        train([place / "data"], place / "bundle", recipe)
    assert read_bundle(place / "bundle").digest() == before


def test_other_events_under_the_same_name_are_refused(place, tmp_path):
    more = small_data(tmp_path / "data", events=5)
    with pytest.raises(InputError, match="holds a training of other events or another recipe"):
        train([more], place / "bundle", small_recipe(place))


def test_a_folder_that_is_no_bundle_is_not_replaced(place, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("precious")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        train([place / "data"], tmp_path / "thesis", small_recipe(place))
    assert (tmp_path / "thesis/chapter1.tex").read_text() == "precious"


def test_events_without_truth_are_refused(tmp_path):
    data = small_data(tmp_path / "data", truth=False)
    with pytest.raises(InputError, match="has no truth file"):
        train([data], tmp_path / "bundle", small_recipe(tmp_path))
    assert not (tmp_path / "bundle").exists()


def test_too_few_events_are_refused(tmp_path):
    data = small_data(tmp_path / "data", events=2)
    with pytest.raises(InputError, match="has 2 events; training needs at least three"):
        train([data], tmp_path / "bundle", small_recipe(tmp_path))
    assert not (tmp_path / "bundle.training").exists()


def test_a_device_that_is_not_there():
    assert find_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=f"torch can't use the device '{name}': "):
            find_device(name)


def test_the_last_events_of_each_set_are_kept_apart(place):
    recipe = small_recipe(place, old="seed = 3", new="seed = 3\nvalidation = 0.2\ntest = 0.3")
    sets = [list(range(10)), list(range(100, 103))]
    train_on, validation, test = split(sets, recipe)  # type: ignore[arg-type]
    assert train_on == [0, 1, 2, 3, 4, 100]
    assert validation == [5, 6, 101]
    assert test == [7, 8, 9, 102]


def test_columns_made_from_cells_are_read_from_the_cells(place, tmp_path):
    recipe = small_recipe(
        tmp_path,
        old='"z"]\nfeatures.scales = [1000.0, 3.0, 1000.0]',
        new='"z", "charge"]\nfeatures.scales = [1000.0, 3.0, 1000.0, 2.0]',
    )
    data = shutil.copytree(place / "data", tmp_path / "data")
    training = Training([data], tmp_path / "bundle", recipe, device="cpu")
    features = training.graphs.sample(training.train[0]).features
    assert features.shape[1] == 4
    assert features[:, 3].max() > 0


def test_events_apart_and_networks_of_another_bundle(place, tmp_path):
    """Radius and cuts are chosen again, for other targets and on other events; nothing is trained."""
    apart = small_data(tmp_path / "validation", events=2), small_data(tmp_path / "test", events=1)
    recipe = small_recipe(tmp_path, old="seed = 3", new="seed = 3\nmin_pt = 0.5")
    first = place / "bundle"
    train([place / "data"], tmp_path / "second", recipe, apart=apart, networks=first)
    second = read_bundle(tmp_path / "second")
    for name in ("embedding", "gnn"):
        member = f"{name}.onnx"
        assert (second.path / member).read_bytes() == (first / member).read_bytes()
    assert second.triplets is not None
    before = json.loads((place / "bundle.training/chosen.json").read_text())
    chosen = [second.radius, second.filter_cut, second.triplets.cut]
    assert chosen != [before[n] for n in ("radius", "served_filter_cut", "served_triplet_cut")]
    says = second.provenance
    assert says["events"] == {"train": 4, "validation": 2, "test": 1}
    assert says["data"] == ["data", "validation", "test"]
    assert says["networks"]["bundle"] == f"small {read_bundle(first).digest()}"
    assert says["networks"]["recipe"]["min_pt"] == 0.9
    assert not (tmp_path / "second.training/metrics.jsonl").exists()


@pytest.mark.parametrize("without", ["validation", "test"])
def test_events_without_truth_are_refused_before_anything_is_done(place, tmp_path, without):
    apart = (
        small_data(tmp_path / "validation", events=1, truth=without != "validation"),
        small_data(tmp_path / "test", events=1, truth=without != "test"),
    )
    with pytest.raises(InputError, match=f"{without}.* truth"):
        train([place / "data"], tmp_path / "second", small_recipe(tmp_path), apart=apart)
    assert not (tmp_path / "second.training").exists()


def test_a_like_that_is_not_there_is_refused_before_anything_is_done(place, tmp_path):
    recipe = small_recipe(tmp_path, old="seed = 3", new='seed = 3\nlike = "nowhere"')
    with pytest.raises(InputError, match="the recipe's like is 'nowhere'"):
        train([place / "data"], tmp_path / "second", recipe)
    assert not (tmp_path / "second.training").exists()


@pytest.mark.filterwarnings("ignore:the reference engine runs")
def test_a_bundle_like_another_has_its_fit_and_is_measured_with_it(place, tmp_path):
    recipe = small_recipe(tmp_path, old="seed = 3", new='seed = 3\nlike = "hl-lhc"')
    with pytest.warns(UserWarning, match="no tracks were found .* cut of 0.85"):
        train([place / "data"], tmp_path / "second", recipe, networks=place / "bundle")
    second, shipped = read_bundle(tmp_path / "second"), read_bundle("hl-lhc")
    assert (second.fit, second.quality) == (shipped.fit, shipped.quality)
    own = {"min_hits": recipe.tracks.min_hits}
    assert second.track_builder == replace(shipped.track_builder, **own)
    chosen = json.loads((tmp_path / "second.training/chosen.json").read_text())
    assert "track_cut" not in chosen
    assert second.provenance["like"] == f"hl-lhc {shipped.digest()}"
    assert second.provenance["physics"]["data"]["events"] == 1


def test_networks_of_other_features_are_not_taken(place, tmp_path):
    recipe = small_recipe(tmp_path, old="[1000.0, 3.0, 1000.0]", new="[1000.0, 3.0, 500.0]")
    with pytest.raises(InputError, match="can't be taken; expected all four"):
        train([place / "data"], tmp_path / "second", recipe, networks=place / "bundle")
