import pytest

from trackserve.contract.description import Description
from trackserve.contract.tensors import ENSEMBLES, EXATRKX, MODELS, SERVED, STAGES, TRACK_FINDING

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
    tensors = {t for model in MODELS.values() for t in (*model.inputs, *model.outputs)}
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


@pytest.mark.parametrize("parameters", [{}, {**SAYS.parameters(), "max_hits": "many"}])
def test_parameters_of_another_service_are_no_description(parameters):
    with pytest.raises((KeyError, ValueError)):
        Description.from_parameters(parameters)
