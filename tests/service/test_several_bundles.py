"""Several bundles on one server: each answers by its name as in process, and is counted apart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from served import FREE_PORTS, wait_for
from tiny_bundle import straight_tracks
from trackserve.bundle import read_bundle, shipped_bundles
from trackserve.bundle.named import named_bundle
from trackserve.cli import main
from trackserve.client import AsyncClient, Client
from trackserve.client.status import read_status
from trackserve.engines.registry import open_pipeline
from trackserve.errors import InputError
from trackserve.pipeline.features import feature_matrix
from trackserve.serving.repository import bundle_names, write_repository
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.serving.service import Service

HITS = straight_tracks(tracks=40, noise=60, seed=3)


@pytest.fixture(scope="module")
def bundles() -> tuple[Bundle, Bundle]:
    """Two that ship, the second by a name of its own."""
    first, second = shipped_bundles()[:2]
    return read_bundle(first), named_bundle(f"second={second}")


@pytest.fixture(scope="module")
def server(bundles: tuple[Bundle, Bundle]) -> Iterator[Service]:
    first, *others = bundles
    with serve(first, Settings(engine="reference"), others=others, **FREE_PORTS) as running:
        yield running


@pytest.mark.service
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_each_bundle_answers_by_its_name_as_in_process(server, bundles, protocol):
    url = server.grpc_url if protocol == "grpc" else server.http_url
    for bundle in bundles:
        expected = open_pipeline(bundle, engine="reference").find_tracks(HITS).labels
        with Client(url, bundle=bundle.name) as client:
            assert client.description.digest == bundle.digest()
            assert client.description.bundle == bundle.name
            assert client.description.bundles == tuple(each.name for each in bundles)
            np.testing.assert_array_equal(client.find_tracks(HITS).labels, expected)
            table = HITS.table(bundle.features.wire_columns[:3])
            if bundle.features.wire_columns == ("x", "y", "z"):
                features = feature_matrix(table, bundle.features)
                found = client.find_tracks_from_features(features)
                np.testing.assert_array_equal(found.labels, expected)
    with Client(url) as client:  # who names none gets the first
        assert client.description.digest == bundles[0].digest()


@pytest.mark.service
def test_a_bundle_that_is_not_there_is_named_with_those_that_are(server, bundles):
    names = ", ".join(bundle.name for bundle in bundles)
    with (
        Client(server.grpc_url, bundle="nowhere") as client,
        pytest.raises(InputError, match=f"no bundle 'nowhere'; it has {names}"),
    ):
        client.find_tracks(HITS)


@pytest.mark.service
def test_a_server_whose_first_bundle_has_changed_does_not_answer_with_it(server, bundles):
    with Client(server.grpc_url, bundle=bundles[0].name) as client:
        _ = client.description
        client.bundle = "before"  # as if the server had named its first one so until now
        described = client.description.__class__(
            **{**vars(client.description), "bundles": ("before",)}
        )
        client._described = described
        with pytest.raises(InputError, match=f"has the bundle {bundles[0].name}, not 'before'"):
            client.find_tracks(HITS)


@pytest.mark.service
def test_metrics_and_status_tell_the_bundles_apart(server, bundles):
    broken = np.full((4, 3), np.nan, np.float32)

    async def ask() -> None:
        async with AsyncClient(server.grpc_url, bundle="second") as client:
            await client.find_tracks(HITS)
            with pytest.raises(InputError):
                await client.find_tracks(broken)
            with pytest.raises(InputError):
                await client.find_tracks_from_features(broken)

    asyncio.run(ask())
    name = 'trackserve_requests_total{bundle="second",model="%s.second",outcome="unusable"}'
    for model in ("exatrkx", "track_finding"):
        wait_for(server, name % model, 1)
    found = read_status(server.grpc_url, server.metrics_url, seconds=0)
    counts = {each.description.bundle: (each.outcomes or {}).get("unusable", 0) for each in found}
    assert counts["second"] == 2
    assert counts[bundles[0].name] < 2
    assert found[1].spent


@pytest.mark.service
def test_find_and_bench_ask_for_a_bundle_by_name(server, bundles, tmp_path, capsys):
    features = tmp_path / "scaled.npy"
    np.save(features, feature_matrix(HITS.table(("x", "y", "z")), bundles[1].features))
    options = [
        "--bundle",
        "second",
        "--check",
        "--seconds",
        "0.3",
        "--warm-up",
        "0",
        "--processes",
        "1",
    ]
    main(["bench", server.grpc_url, str(features), "--features", *options])
    assert "answered" in capsys.readouterr().out
    rows = [f"{i},{x},{y},{z}" for i, (x, y, z) in enumerate(HITS.table(("x", "y", "z")).tolist())]
    event = tmp_path / "event000000001-hits.csv"
    event.write_text("\n".join(["hit_id,x,y,z", *rows]) + "\n")
    main(["find", str(event), "--server", server.grpc_url, "--bundle", "second"])
    labels = [int(line.split(",")[2]) for line in capsys.readouterr().out.splitlines()[1:]]
    expected = open_pipeline(bundles[1], engine="reference").find_tracks(HITS).labels
    assert len(set(labels) - {0}) == len(set(expected.tolist()) - {-1})


def test_bundles_of_one_name_and_names_that_no_model_can_have_are_refused(tiny_bundle):
    with pytest.raises(InputError, match="two bundles are named 'tiny'"):
        bundle_names((tiny_bundle, tiny_bundle))
    odd = named_bundle(f"a.b={tiny_bundle.path}")
    with pytest.raises(InputError, match=r"named 'a\.b'; a model's name takes"):
        bundle_names((tiny_bundle, odd))


def test_an_ensemble_of_another_bundle_has_stages_of_its_own(tiny_bundle, tmp_path: Path):
    settings = Settings(shape="ensemble")
    other = named_bundle(f"other={tiny_bundle.path}")
    folder = write_repository(
        tiny_bundle, tmp_path / "models", settings, others=[(other, settings)]
    )
    names = {path.name for path in folder.iterdir()}
    assert {f"{name}.other" for name in names if "." not in name} == {n for n in names if "." in n}
    text = (folder / "hits_to_tracks.other" / "config.pbtxt").read_text()
    assert text.count('.other"') == 1 + 9
    assert (
        'string_value: "hits_to_tracks.other"'
        in (folder / "track_finding.other/config.pbtxt").read_text()
    )
    assert (folder / "track_finding.other" / "bundle" / "bundle.toml").is_file()
