"""Several waiting events in one execution: each has its own answer, or its own error."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from served import FREE_PORTS, counted, wait_for
from tiny_bundle import straight_tracks
from trackserve.bundle import read_bundle
from trackserve.client import Client
from trackserve.engines.native import variants
from trackserve.engines.registry import available, open_pipeline
from trackserve.engines.registry import engine as engine_of
from trackserve.errors import InputError
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.timings import EDGE_STAGES, STAGE_NAMES
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

pytestmark = pytest.mark.service


@pytest.mark.parametrize("engine", [n for n in available() if engine_of(n).chosen_by_auto()])
def test_events_of_one_execution_are_answered_and_counted_apart(tiny_bundle, engine):
    if engine == "native" and not variants():
        pytest.skip("needs the native engine")
    bundle = read_bundle() if engine == "native" else tiny_bundle
    pipeline = open_pipeline(bundle, engine=engine)
    slow = [straight_tracks(tracks=700, noise=1100, seed=i) for i in range(4)]
    small = [straight_tracks(tracks=i, noise=i % 3, seed=i) for i in range(16)]

    bad = small[3].table(("x", "y", "z"))
    bad[7, 2] = np.nan
    asked = [(Client.find_tracks, hits) for hits in (*slow, *small, bad)]
    features = [hit_features(hits, bundle.features) for hits in small]
    asked += [(Client.find_tracks_from_features, each) for each in features]

    def ask(method, what):
        with Client(server.grpc_url) as client:
            try:
                return method(client, what).labels
            except InputError as error:
                return str(error)

    settings = Settings(engine=engine, batch=4)
    with (
        serve(bundle, settings, **FREE_PORTS) as server,
        ThreadPoolExecutor(len(asked)) as pool,
    ):
        answers = list(pool.map(ask, *zip(*asked, strict=True)))
        total = f'trackserve_events_total{{bundle="{bundle.name}",stage="%s"}}'
        for stage in STAGE_NAMES:
            events = len(slow) + len(small) if stage == "features" else len(asked) - 1
            wait_for(server, total % stage, events)
        found = counted(server)
    expected = [pipeline.find_tracks(hits).labels for hits in (*slow, *small)]
    expected += ["hit row 7: z is nan; every hit needs finite numbers", *expected[len(slow) :]]
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer, right)

    # The one that is unusable is in no count.
    by_features = [hit_features(hits, bundle.features) for hits in (*slow, *small, *small)]
    by_hand = Counter({"features": len(slow) + len(small)})
    for stage in STAGE_NAMES[1:]:
        by_hand[stage] = len(by_features)
    assert {stage: found[total % stage] for stage in STAGE_NAMES} == by_hand
    edges = Counter[str]()
    for each in by_features:
        out = pipeline.run(each)
        for one in (out,) if out.second is None else (out, out.second.outputs):
            graphs = (one.candidates, one.filtered, one.joined)
            edges.update(dict(zip(EDGE_STAGES, (g.edges.shape[1] for g in graphs), strict=True)))
    assert {
        s: found[f'trackserve_edges_total{{bundle="{bundle.name}",stage="{s}"}}']
        for s in EDGE_STAGES
    } == edges
    tracks = sum(
        len(set(labels.tolist()) - {-1}) for labels in answers if not isinstance(labels, str)
    )
    assert found[f'trackserve_tracks_total{{bundle="{bundle.name}"}}'] == tracks
