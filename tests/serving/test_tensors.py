import pytest

from trackserve.contract.description import Description
from trackserve.contract.tensors import ENSEMBLES, EXATRKX, MODELS, SERVED, STAGES, TRACK_FINDING
from trackserve.contract.wanted import Wanted
from trackserve.errors import InputError

SAYS = Description(
    columns=("x", "y", "z", "volume_id"),
    absent={"volume_id": 8.0},
    features=("r", "phi", "z", "volume_id"),
    scales=(1000.0, 3.14, 1000.0, 18.0),
    max_hits=1000,
    max_queue=64,
    bundle='with "quotes" and µ',
    detector="test",
    digest="0123456789ab",
    track_columns=("pt", "eta"),
    min_quality=0.2,
)


def test_every_stage_reads_what_an_earlier_one_made():
    for model, stages in ((TRACK_FINDING, STAGES), (EXATRKX, STAGES[1:])):
        made = set(model.inputs)
        for stage in stages:
            assert made.issuperset(stage.inputs), stage.name
            assert made.isdisjoint(stage.outputs), stage.name
            made.update(stage.outputs)
        assert made.issuperset(model.outputs)


def test_a_tensor_name_means_one_thing():
    tensors = {
        t for model in MODELS.values() for t in (*model.inputs, *model.outputs, *model.on_request)
    }
    assert len({t.name for t in tensors}) == len(tensors)
    assert len(MODELS) == len(SERVED) + len(ENSEMBLES) + len(STAGES)


def test_the_wire_is_that_of_the_published_service():
    (features,), (labels,) = EXATRKX.inputs, EXATRKX.outputs
    assert (features.name, features.dtype, features.shape({"F": 3})) == (
        "FEATURES",
        "FP32",
        (-1, 3),
    )
    assert (labels.name, labels.dtype, labels.shape({})) == ("LABELS", "INT64", (-1,))


def test_a_description_survives_the_way_through_the_parameters():
    assert Description.from_parameters(SAYS.parameters()) == SAYS


def test_a_server_from_before_tracks_were_fitted_has_a_description():
    older = {
        n: v for n, v in SAYS.parameters().items() if n not in {"track_columns", "min_quality"}
    }
    says = Description.from_parameters(older)
    assert (says.track_columns, says.min_quality) == ((), None)
    with pytest.raises(InputError, match=r"has no \[fit\]"):
        says.check(Wanted(parameters=True), TRACK_FINDING)


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(True), Wanted(False, 0.3), Wanted(True, 0)])
def test_what_is_wanted_survives_the_way_through_the_request(wanted):
    assert Wanted.of_request(wanted.request()) == wanted
    as_text = {name: str(value) for name, value in wanted.request().items() if value is not True}
    assert Wanted.of_request(as_text).min_quality == wanted.min_quality
    assert bool(wanted.request()) == (wanted != Wanted())


@pytest.mark.parametrize("quality", [-0.1, 1, 1.5, True, float("nan"), "0.5", [0.5]])
def test_a_quality_that_is_none_is_refused(quality):
    with pytest.raises(InputError, match="min_quality is"):
        Wanted(min_quality=quality)


@pytest.mark.parametrize("parameters", [{}, {**SAYS.parameters(), "max_hits": "many"}])
def test_parameters_of_another_service_are_no_description(parameters):
    with pytest.raises((KeyError, ValueError)):
        Description.from_parameters(parameters)
