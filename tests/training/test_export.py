from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trackserve.errors import BundleError
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.networks import load_network, run_network
from trackserve.training.export import METADATA, export_network
from trackserve.training.networks import Filter, Gnn, TripletFilter

COLUMNS = FeatureColumns(("r", "phi", "z"), (1000.0, 3.0, 1000.0), {})
FEATURES = np.random.default_rng(1).uniform(0.1, 1, (40, 3)).astype(np.float32)
EDGES = np.stack([np.arange(39), np.arange(1, 40)])
TRIPLETS = np.stack([np.arange(38), np.arange(1, 39)])


@pytest.mark.parametrize(
    ("network", "joined"),
    [
        (Filter(COLUMNS, width=8, layers=2), False),
        (TripletFilter(COLUMNS, width=8, layers=2), True),
        (Gnn(COLUMNS, width=8, steps=2), True),
    ],
    ids=["filter", "triplets", "gnn"],
)
def test_onnx_gives_what_torch_gives_for_any_number_of_hits_edges_and_triplets(
    network, joined, tmp_path
):
    path = tmp_path / "net.onnx"
    found = export_network(
        network,
        path,
        output="logits",
        description={"kind": "net"},
        features=FEATURES,
        edges=EDGES,
        triplets=TRIPLETS if joined else None,
    )
    assert found < 1e-4
    for hits, edges, triplets in ((40, 0, 0), (2, 1, 0), (17, 16, 15)):
        inputs = [FEATURES[:hits], np.ascontiguousarray(EDGES[:, :edges])]
        if joined:
            inputs.append(np.ascontiguousarray(TRIPLETS[:, :triplets]))
        with torch.no_grad():
            expected = network(*map(torch.from_numpy, inputs)).numpy()
        logits = run_network(load_network(path, 1), *inputs)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    model = onnx.load(path)
    assert [(m.key, m.value) for m in model.metadata_props] == [(METADATA, '{"kind": "net"}')]
    assert b"/site-packages/" not in path.read_bytes()


class Fickle(nn.Module):
    """A network that gives something else each time, as one with dropout left on would."""

    def forward(self, features: Tensor) -> Tensor:
        return features + (1.0 if torch.compiler.is_compiling() else 0.0)


def test_an_export_that_differs_is_refused(tmp_path):
    with pytest.raises(
        BundleError, match=r"net.onnx differs from torch by 1; expected at most 0.001"
    ):
        export_network(
            Fickle(), tmp_path / "net.onnx", output="embedding", description={}, features=FEATURES
        )
