"""A bundle and settings to a Triton model repository: one folder, fit to be carried elsewhere.

track_finding/       config.pbtxt  1/model.py  bundle/    the bundle's one copy
  environment/       the packages that models import, if it was asked for
exatrkx/             config.pbtxt  1/model.py
hits_to_tracks/ ...  config.pbtxt                         in an ensemble
embedding/ ...       config.pbtxt  1/model.py             its stages

Each further bundle has the same models, as ``track_finding.NAME`` and so on.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from trackserve.bundle import BUNDLE_FILE
from trackserve.bundle.description import describe
from trackserve.contract.description import PIPELINE
from trackserve.contract.tensors import (
    EXATRKX,
    FEATURES_TO_TRACKS,
    HITS_TO_TRACKS,
    MODELS,
    SERVED,
    STAGES,
    TRACK_FINDING,
    Model,
    Tensor,
    bundle_folder,
    split_name,
)
from trackserve.engines.registry import engine
from trackserve.errors import InputError
from trackserve.pipeline.networks import steady_threads
from trackserve.serving.environment import ENVIRONMENT, check_torch, model_head, write_environment
from trackserve.serving.settings import NETWORKS, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.bundle import Bundle

_SERVED_NAMES = {model.name for model in SERVED}


def write_repository(
    bundle: Bundle,
    directory: Path | str,
    settings: Settings | None = None,
    *,
    others: Sequence[tuple[Bundle, Settings]] = (),
    environment: bool = False,
) -> Path:
    """Write the model repository that serves a bundle with these settings, and ``others`` by their names.

    It holds a copy of each bundle, so the folder is all that a server needs beside an installed
    trackserve; with an ``environment`` it holds that, too (:mod:`trackserve.serving.environment`).
    Raises :class:`InputError` if ``directory`` is there already and not empty, and for two bundles of
    one name.
    """
    served = ((bundle, settings or Settings()), *others)
    names = bundle_names([each for each, _ in served])
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        message = f"{directory} exists already; choose another folder, or remove it first"
        raise InputError(message)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as beside:
        repository = Path(beside) / "repository"
        for (each, its_own), suffix in zip(served, ("", *names[1:]), strict=True):
            for config in model_configs(each, its_own, suffix, names):
                if environment and config.backend == "python":
                    path = f"$$TRITON_MODEL_DIRECTORY/../{TRACK_FINDING.name}/{ENVIRONMENT}"
                    config.parameters["EXECUTION_ENV_PATH"].string_value = path
                _write_model(repository / config.name, config, each)
            folder = repository / bundle_folder(suffix)
            folder.mkdir()
            for member in (BUNDLE_FILE, *(f"{network}.onnx" for network in each.networks)):
                shutil.copyfile(each.path / member, folder / member)
        if environment:
            first = served[0][1]
            if first.engine == "gpu":
                check_torch(first.device)
            place = repository / TRACK_FINDING.name / ENVIRONMENT
            write_environment(place, first.engine, traced=bool(first.trace))
        repository.rename(directory)
    return directory


def bundle_names(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """Return the names of the bundles of one server; raises :class:`InputError` for two of one name.

    All but the first are part of their models' names.
    """
    names = tuple(bundle.name for bundle in bundles)
    for number, name in enumerate(names):
        if name in names[:number]:
            message = f"two bundles are named {name!r}; name one of them, as in other={bundles[number].path}"
            raise InputError(message)
        if number and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            message = (
                f"a bundle is named {name!r}; a model's name takes letters, digits, - and _, so name it, "
                f"as in other={bundles[number].path}"
            )
            raise InputError(message)
    return names


def model_configs(
    bundle: Bundle, settings: Settings, suffix: str = "", bundles: Sequence[str] = ()
) -> list[Any]:
    """Return the configuration (Triton's ``ModelConfig``) of every model of a bundle.

    Their names end in ``suffix`` where the bundle isn't the first of ``bundles``, those of the server.
    """
    configs = _configs(bundle, settings, bundles)
    for config in configs:
        config.name = _of(config.name, suffix)
        for step in config.ensemble_scheduling.step:
            step.model_name = _of(step.model_name, suffix)
        worker = config.parameters.get("worker")
        if worker is not None and worker.string_value != PIPELINE:
            worker.string_value = _of(worker.string_value, suffix)
    return configs


def _of(name: str, suffix: str) -> str:
    return MODELS[name].of(suffix).name


def _configs(bundle: Bundle, settings: Settings, bundles: Sequence[str]) -> list[Any]:
    sizes = {
        "C": len(bundle.features.wire_columns),
        "F": len(bundle.features.columns),
        "D": bundle.embedding_dimension,
    }
    description = describe(
        bundle, max_hits=settings.max_hits, max_queue=settings.max_queue, bundles=bundles
    )
    parameters = description.parameters()
    if settings.shape == "monolith":
        return [_front_config(model, PIPELINE, settings, sizes, parameters) for model in SERVED]
    stages = [
        _onnxruntime_config(stage, settings, sizes, bundle)
        if settings.networks == "onnxruntime" and stage.name in NETWORKS
        else _python_config(stage, settings, sizes, parameters)
        for stage in STAGES
    ]
    return [
        _front_config(TRACK_FINDING, HITS_TO_TRACKS.name, settings, sizes, parameters),
        _front_config(EXATRKX, FEATURES_TO_TRACKS.name, settings, sizes, parameters),
        _ensemble_config(HITS_TO_TRACKS, STAGES, stages, sizes),
        _ensemble_config(FEATURES_TO_TRACKS, STAGES[1:], stages[1:], sizes),
        *stages,
    ]


def _front_config(
    model: Model,
    worker: str,
    settings: Settings,
    sizes: Mapping[str, int],
    parameters: Mapping[str, str],
) -> Any:
    """Configure a served model, which runs the pipeline or hands what it takes to an ensemble."""
    limits = {
        **_how(worker, settings),
        "worker": worker,
        "at_once": str(settings.at_once),
        "queue_timeout": str(settings.queue_timeout),
        "batch": str(settings.batch),
        "log_requests": settings.log_requests,
    }
    config = _config(model, sizes, {**parameters, **limits})
    config.backend = "python"
    group = config.instance_group.add(count=1, kind=_instance_kind(settings))
    if group.kind == pb.ModelInstanceGroup.KIND_GPU:
        # One process, which places its workers itself: without this Triton starts one on each GPU.
        group.gpus.append(_index(settings.devices[0]))
    return config


def _index(device: str) -> int:
    """Return the number of a device such as ``cuda:1``, 0 where it has none."""
    number = device.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _instance_kind(settings: Settings) -> Any:
    """Return where Triton places what runs the pipeline: on a GPU if the engine's device is one."""
    device = settings.devices[0]
    if device == "auto":
        device = engine(settings.engine).device_kinds[0]
    on_processor = device == "cpu" or settings.shape == "ensemble"
    kinds = pb.ModelInstanceGroup
    return kinds.KIND_CPU if on_processor else kinds.KIND_GPU


def _python_config(
    model: Model, settings: Settings, sizes: Mapping[str, int], parameters: Mapping[str, str]
) -> Any:
    config = _config(model, sizes, {**parameters, **_how(model.name, settings)})
    config.backend = "python"
    config.instance_group.add(
        count=settings.instances.get(model.name, 1), kind=pb.ModelInstanceGroup.KIND_CPU
    )
    return config


def _how(name: str, settings: Settings) -> dict[str, str]:
    """Return the parameters of a model for threads, engine, device and precision."""
    threads = str(settings.threads.get(name, 1))
    return {
        "threads": threads,
        "engine": settings.engine,
        "device": settings.device,
        "precision": settings.precision,
        "trace": settings.trace,
        "budget": json.dumps({"hits": settings.max_hits, **settings.budget}),
    }


def _onnxruntime_config(
    stage: Model, settings: Settings, sizes: Mapping[str, int], bundle: Bundle
) -> Any:
    """Configure a network for Triton's onnxruntime backend, which uses a GPU where it finds one."""
    path = bundle.path / f"{stage.name}.onnx"
    threads = steady_threads(path.read_bytes(), settings.threads.get(stage.name, 1))
    config = _config(stage, sizes, {"intra_op_thread_count": str(threads)})
    config.backend = "onnxruntime"
    config.instance_group.add(count=settings.instances.get(stage.name, 1))
    model = onnx.load(path)
    (output,) = model.graph.output
    taken = {i.name for i in model.graph.input}
    names = [name for name in ("features", "edges", "triplets") if name in taken]
    for tensor, name in zip(config.input, names, strict=False):
        tensor.name = name
    del config.input[len(names) :]
    config.output[0].name = output.name
    if len(output.type.tensor_type.shape.dim) > len(stage.outputs[0].dims):
        config.output[0].reshape.shape.extend([-1, 1])  # a logit per edge exported as [E, 1]
    return config


def _ensemble_config(
    model: Model,
    stages: tuple[Model, ...],
    configs: list[Any],
    sizes: Mapping[str, int],
) -> Any:
    """Configure a chain of stages; every tensor has one name along it, as in the table."""
    config = _config(model, sizes, {})
    config.platform = "ensemble"
    for stage, stage_config in zip(stages, configs, strict=True):
        step = config.ensemble_scheduling.step.add(model_name=stage.name, model_version=-1)
        # A network on Triton's own backend takes no triplets where the bundle has none.
        for tensor, own in zip(stage.inputs, stage_config.input, strict=False):
            step.input_map[own.name] = tensor.name
        asked = [tensor for tensor in stage.on_request if tensor in model.on_request]
        outputs = (*stage.outputs, *asked)
        for tensor, own in zip(outputs, stage_config.output, strict=False):
            step.output_map[own.name] = tensor.name
    return config


def _config(model: Model, sizes: Mapping[str, int], parameters: Mapping[str, str]) -> Any:
    config = pb.ModelConfig(name=model.name)
    inputs = (*model.inputs, *(model.compact or ())[:1])
    for tensors, listed in ((inputs, config.input), (model.all_outputs, config.output)):
        for tensor in tensors:
            listed.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape(sizes))
    if model.compact is not None:
        for given in config.input:  # one of them comes
            given.optional = True
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def _data_type(tensor: Tensor) -> Any:
    name = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    return pb.DataType.Value(f"TYPE_{name}")


def _write_model(folder: Path, config: Any, bundle: Bundle) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    text = text_format.MessageToString(config, as_utf8=True)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    if config.backend == "python":
        entry = "front" if split_name(config.name)[0] in _SERVED_NAMES else "stage"
        head = model_head() if "EXECUTION_ENV_PATH" in config.parameters else ""
        line = f"from trackserve.backend.{entry} import TritonPythonModel  # noqa: F401\n"
        (version / "model.py").write_text(head + line, encoding="utf-8")
    elif config.backend == "onnxruntime":
        network = split_name(config.name)[0]
        shutil.copyfile(bundle.path / f"{network}.onnx", version / "model.onnx")
