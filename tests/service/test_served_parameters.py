"""Parameters of tracks on request: as in process to the bit, and nothing for who doesn't ask."""

from __future__ import annotations

import asyncio
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from trackserve.bundle import read_bundle, shipped_bundle
from trackserve.cli import main
from trackserve.client import AsyncClient, Client
from trackserve.client.fallback import Fallback
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings
from trackserve.track_table import TRACK_COLUMNS

pytestmark = pytest.mark.service

EVENTS = [straight_tracks(tracks=i, noise=i % 7, seed=i) for i in (40, 0, 1, 25, 60)]
WANTED = [{}, {"parameters": True}, {"min_quality": 0.9}, {"parameters": True, "min_quality": 0.0}]


@pytest.fixture(scope="module", params=["monolith", "ensemble"])
def fitted(request, tmp_path_factory):
    """A server of a bundle that fits tracks, and drops more of them than the shipped one; and in process."""
    folder = tmp_path_factory.mktemp("bundles") / "fitted"
    shutil.copytree(shipped_bundle(), folder)
    text = (folder / "bundle.toml").read_text()
    (folder / "bundle.toml").write_text(re.sub("min_quality = .*", "min_quality = 0.6", text))
    bundle = read_bundle(folder)
    monolith = request.param == "monolith"
    settings = Settings(shape=request.param, max_hits=2000, batch=4 if monolith else 1)
    with serve(bundle, settings, **FREE_PORTS) as server:
        yield server, open_pipeline(bundle, engine=settings.engine)


def check_same(found, expected):
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert (found.parameters is None) == (expected.parameters is None)
    if found.parameters is not None:
        assert found.parameters.matrix().tobytes() == expected.parameters.matrix().tobytes()


def test_parameters_equal_those_in_process_to_the_bit(fitted):
    server, pipeline = fitted
    expected = [pipeline.find_tracks(EVENTS[0], **wanted) for wanted in WANTED]
    assert len(expected[3]) > len(expected[1]) > len(expected[2]) > 5
    assert np.isfinite(expected[1].parameters.matrix()).all()
    for url in (server.grpc_url, server.http_url):
        with Client(url) as client:
            assert client.description.track_columns == TRACK_COLUMNS
            assert client.description.min_quality == pipeline.bundle.track_builder.min_quality
            for wanted, tracks in zip(WANTED, expected, strict=True):
                check_same(client.find_tracks(EVENTS[0], **wanted), tracks)


def test_events_of_one_execution_each_get_what_they_asked_for(fitted):
    server, pipeline = fitted
    asked = [(hits, wanted) for hits in EVENTS for wanted in WANTED]

    def ask(hits, wanted):
        with Client(server.grpc_url) as client:
            return client.find_tracks(hits, **wanted)

    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(ask, *zip(*asked, strict=True)))
    for (hits, wanted), answer in zip(asked, answers, strict=True):
        check_same(answer, pipeline.find_tracks(hits, **wanted))


def test_many_events_come_with_parameters(fitted):
    server, pipeline = fitted

    async def ask():
        async with AsyncClient(server.grpc_url) as client:
            answers = client.find_all(EVENTS, parameters=True, min_quality=0.5)
            return [answer.tracks async for answer in answers]

    for hits, tracks in zip(EVENTS, asyncio.run(ask()), strict=True):
        check_same(tracks, pipeline.find_tracks(hits, parameters=True, min_quality=0.5))


def test_find_writes_the_same_files_from_a_server_as_in_process(request, fitted, tmp_path):
    server, pipeline = fitted
    engine = Settings(shape=request.node.callspec.params["fitted"]).engine
    for number, hits in enumerate(EVENTS):
        rows = np.column_stack([hits.hit_id, hits.x, hits.y, hits.z])
        name = tmp_path / f"event{number:09d}-hits.csv"
        np.savetxt(name, rows, "%.9g", ",", header="hit_id,x,y,z", comments="")
    bundle = str(pipeline.bundle.path)
    places = {
        "served": ["--server", server.grpc_url],
        "many": ["--server", server.grpc_url, "--concurrency", "3"],
        "local": ["--local", "--bundle", bundle, "--engine", engine],
    }
    files = {}
    for name, place in places.items():
        made = tmp_path / f"{name}.csv", tmp_path / f"{name}-parameters.csv"
        out = ["-o", str(made[0]), "--parameters", str(made[1]), "--min-quality", "0.3"]
        assert main(["find", *map(str, tmp_path.glob("event*")), *place, *out]) == 0
        files[name] = [sorted(path.read_text().splitlines()) for path in made]
    assert files["served"] == files["many"] == files["local"]
    tracks = sum(len(pipeline.find_tracks(hits, min_quality=0.3)) for hits in EVENTS)
    assert len(files["local"][1]) == tracks + 1


def test_who_asks_for_nothing_gets_labels_alone(fitted):
    server, pipeline = fitted
    positions = EVENTS[0].table(("x", "y", "z"))
    sent = tritonclient.grpc.InferInput("HITS", list(positions.shape), "FP32")
    sent.set_data_from_numpy(positions)
    address = server.grpc_url.removeprefix("grpc://")
    with tritonclient.grpc.InferenceServerClient(address) as client:
        answer = client.infer("track_finding", [sent]).get_response()
    assert [output.name for output in answer.outputs] == ["LABELS"]
    labels = np.frombuffer(answer.raw_output_contents[0], np.int64)
    np.testing.assert_array_equal(labels, pipeline.find_tracks(EVENTS[0]).labels)


def test_a_bundle_without_a_fit_refuses_in_one_sentence(url, tiny_bundle):
    hits = EVENTS[0]
    with Client(url) as client, Client("127.0.0.1:9", fallback=Fallback(tiny_bundle.path)) as alone:
        assert (client.description.track_columns, client.description.min_quality) == ((), None)
        for asked in (client, alone):
            with pytest.raises(InputError, match=r"^the bundle tiny has no \[fit\]"):
                asked.find_tracks(hits, parameters=True)
            with pytest.raises(InputError, match=r"^the bundle tiny has no \[quality\]"):
                asked.find_tracks(hits, min_quality=0.5)
        assert len(client.find_tracks(hits)) > 1


@pytest.mark.parametrize(
    ("model", "parameters", "sentence"),
    [
        ("track_finding", {"track_parameters": "yes"}, "track_parameters is 'yes'"),
        ("track_finding", {"min_quality": 7}, "min_quality is 7"),
        ("track_finding", {"min_quality": "nan"}, "min_quality is nan"),
        ("track_finding", {"min_quality": "high"}, "min_quality is 'high'"),
        ("exatrkx", {"track_parameters": True}, "the model 'exatrkx' returns LABELS alone"),
    ],
)
def test_a_wish_that_is_none_is_refused_in_one_sentence(monolith, model, parameters, sentence):
    name = {"track_finding": "HITS", "exatrkx": "FEATURES"}[model]
    sent = tritonclient.grpc.InferInput(name, [2, 3], "FP32")
    sent.set_data_from_numpy(np.ones((2, 3), np.float32))
    address = monolith.grpc_url.removeprefix("grpc://")
    with (
        tritonclient.grpc.InferenceServerClient(address) as client,
        pytest.raises(InferenceServerException, match=sentence) as raised,
    ):
        client.infer(model, [sent], parameters=parameters)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
