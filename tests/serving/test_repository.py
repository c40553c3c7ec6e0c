import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tiny_bundle import write_tiny_bundle
from trackserve.bundle import read_bundle
from trackserve.contract.description import Description
from trackserve.contract.tensors import STAGES, bundle_folder
from trackserve.engines.registry import fastest
from trackserve.errors import InputError
from trackserve.serving.repository import write_repository
from trackserve.serving.settings import Settings
from trackserve.track_table import TRACK_COLUMNS


def read_config(repository, model):
    config = pb.ModelConfig()
    text_format.Parse((repository / model / "config.pbtxt").read_text(), config)
    return config


def shapes(tensors):
    return {t.name: (pb.DataType.Name(t.data_type), list(t.dims)) for t in tensors}


def test_a_monolith_has_the_pipeline_in_the_two_served_models(tiny_bundle, tmp_path):
    settings = Settings(
        instances={"pipeline": 3}, threads={"pipeline": 2}, max_queue=7, queue_timeout=1.5, batch=5
    )
    repository = write_repository(tiny_bundle, tmp_path / "models", settings)
    assert sorted(p.name for p in repository.iterdir()) == ["exatrkx", "track_finding"]
    models = finding, exatrkx = [read_config(repository, m) for m in ("track_finding", "exatrkx")]
    assert shapes(finding.input) == {
        "HITS": ("TYPE_FP32", [-1, 3]),
        "HITS_COMPACT": ("TYPE_UINT8", [-1]),
    }
    assert all(given.optional for given in finding.input)  # one of them comes
    assert not any(given.optional for given in exatrkx.input)
    assert shapes(finding.output) == {
        "LABELS": ("TYPE_INT64", [-1]),
        "LABELS_COMPACT": ("TYPE_UINT8", [-1]),
        "PARAMETERS": ("TYPE_FP32", [-1, len(TRACK_COLUMNS)]),
    }
    assert shapes(exatrkx.output) == {
        "LABELS": ("TYPE_INT64", [-1]),
        "WARNING": ("TYPE_STRING", [1]),
    }
    assert shapes(exatrkx.input) == {"FEATURES": ("TYPE_FP32", [-1, 3])}
    assert {model.backend for model in models} == {"python"}
    assert [model.instance_group[0].count for model in models] == [1, 1]
    for model in models:
        given = {name: value.string_value for name, value in model.parameters.items()}
        how = ("worker", "at_once", "threads", "engine")
        assert tuple(given[name] for name in how) == ("pipeline", "3", "2", fastest())
        limits = ("max_queue", "queue_timeout", "batch")
        assert tuple(given[name] for name in limits) == ("7", "1.5", "5")
    # With a bound of Triton's own, requests sleep beside an idle instance.
    assert not any(model.HasField("dynamic_batching") for model in models)


def test_the_model_says_what_it_is(tiny_bundle, tmp_path):
    repository = write_repository(tiny_bundle, tmp_path / "models", Settings(max_hits=12))
    config = read_config(repository, "track_finding")
    says = Description.from_parameters({k: v.string_value for k, v in config.parameters.items()})
    assert says.columns == ("x", "y", "z")
    assert (says.features, says.scales) == (("r", "phi", "z"), (1000.0, 3.2, 1000.0))
    assert (says.max_hits, says.bundle, says.digest) == (12, "tiny", tiny_bundle.digest())


def test_the_bundle_in_the_repository_is_the_one_given(tiny_bundle, tmp_path):
    repository = write_repository(tiny_bundle, tmp_path / "models")
    assert read_bundle(repository / bundle_folder()).digest() == tiny_bundle.digest()


def test_an_ensemble_has_a_model_for_each_stage(tiny_bundle, tmp_path):
    settings = Settings(shape="ensemble", instances={"gnn": 2}, threads={"gnn": 4})
    repository = write_repository(tiny_bundle, tmp_path / "models", settings)
    names = {stage.name for stage in STAGES}
    assert {p.name for p in repository.iterdir()} == {
        *("exatrkx", "track_finding", "hits_to_tracks", "features_to_tracks"),
        *names,
    }
    assert read_config(repository, "exatrkx").parameters["worker"].string_value == (
        "features_to_tracks"
    )
    steps = read_config(repository, "hits_to_tracks").ensemble_scheduling.step
    assert [step.model_name for step in steps] == [stage.name for stage in STAGES]
    steps = read_config(repository, "features_to_tracks").ensemble_scheduling.step
    assert [step.model_name for step in steps] == [stage.name for stage in STAGES[1:]]
    gnn = read_config(repository, "gnn")
    assert (gnn.instance_group[0].count, gnn.parameters["threads"].string_value) == (2, "4")


def test_the_networks_can_run_on_the_onnxruntime_backend(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle", features=5, dimension=6, logit_column=True)
    settings = Settings(shape="ensemble", networks="onnxruntime", threads={"filter": 3})
    repository = write_repository(bundle, tmp_path / "models", settings)
    for name in ("embedding", "filter", "gnn"):
        config = read_config(repository, name)
        assert config.backend == "onnxruntime"
        network = onnx.load(repository / name / "1" / "model.onnx").graph
        assert [i.name for i in config.input] == [i.name for i in network.input]
        assert [o.name for o in config.output] == [o.name for o in network.output]
    assert shapes(read_config(repository, "embedding").output) == {
        "embedding": ("TYPE_FP32", [-1, 6])
    }
    filtering = read_config(repository, "filter")
    assert filtering.parameters["intra_op_thread_count"].string_value == "3"
    assert shapes(filtering.output) == {"logits": ("TYPE_FP32", [-1])}
    assert list(filtering.output[0].reshape.shape) == [-1, 1]
    step = read_config(repository, "features_to_tracks").ensemble_scheduling.step[3]
    assert dict(step.input_map) == {"features": "SORTED_FEATURES", "edges": "EDGES"}
    assert dict(step.output_map) == {"logits": "FILTER_LOGITS"}


def test_a_folder_with_something_in_it_is_left_alone(tiny_bundle, tmp_path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(InputError, match="exists already"):
        write_repository(tiny_bundle, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_repository_that_cannot_be_finished_leaves_nothing(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (bundle.path / "gnn.onnx").unlink()
    with pytest.raises(FileNotFoundError):
        write_repository(bundle, tmp_path / "models")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": "cluster"}, "shape is 'cluster'; expected one of monolith, ensemble"),
        ({"networks": "torch"}, "networks is 'torch'; expected one of python, onnxruntime"),
        ({"networks": "onnxruntime"}, "a monolith runs its networks itself"),
        ({"instances": {"gnn": 2}}, "model in instances is 'gnn'; expected one of pipeline"),
        ({"instances": {"pipeline": 0}}, "instances of pipeline is 0; expected at least 1"),
        ({"threads": {"pipeline": -1}}, "threads of pipeline is -1; expected at least 1"),
        ({"log_requests": "some"}, "log_requests is .some.; expected one of none, failures, all"),
        ({"max_hits": 0}, "max_hits is 0"),
        ({"max_queue": 0}, "max_queue is 0"),
        ({"batch": 0}, "batch is 0; expected at least 1"),
        ({"shape": "ensemble", "batch": 2}, "an ensemble's stages take one event at a time"),
        ({"queue_timeout": 0.0}, "queue_timeout is 0.0; expected seconds"),
        ({"queue_timeout": float("nan")}, "queue_timeout is nan; expected seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Settings(**wrong)
