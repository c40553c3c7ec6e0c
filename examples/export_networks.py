"""Make a bundle of three torch networks that were trained elsewhere.

Replace ``Embed`` and ``ScoreEdges`` by your own, with their trained weights, and the settings in
``BUNDLE_FILE`` by those that they were trained with. Here they are untrained: the bundle is sound and
finds nothing of use. Needs torch, onnx and onnxscript (``trackserve[train]``).

    python examples/export_networks.py my-bundle
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

FEATURES, DIMENSION, WIDTH = 3, 12, 32
BUNDLE_FILE = """\
format = 1
name = "my-networks"
detector = "trackml"

[features]
columns = ["r", "phi", "z"]
scales = [1000.0, 3.141592653589793, 1000.0]

[embedding]
dimension = 12

[neighbours]
radius = 0.1
limit = 100

[filter]
cut = 0.05

[tracks]
method = "components"
cut = 0.5
"""


class Embed(nn.Module):
    """Features ``[N, 3]`` to points ``[N, 12]`` on a sphere, as many Exa.TrkX embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, DIMENSION)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the points: what normalises them belongs into the network."""
        return nn.functional.normalize(self.network(features))


class ScoreEdges(nn.Module):
    """Features ``[N, 3]`` and edges ``[2, E]`` to logits ``[E]``, after ``steps`` of messages.

    With no step it is a filter, which sees the two hits of an edge alone.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.encode = nn.Linear(FEATURES, WIDTH)
        self.steps = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(steps))
        self.score = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return a logit for each edge, without the logistic function."""
        hits = torch.tanh(self.encode(features))
        start, end = edges[0], edges[1]
        for step in self.steps:
            # Edges come once, outwards; these messages go along them in both directions.
            received = torch.zeros_like(hits).index_add(0, end, hits.index_select(0, start))
            received = received.index_add(0, start, hits.index_select(0, end))
            hits = torch.tanh(step(torch.cat([hits, received], dim=1)))
        pairs = torch.cat([hits.index_select(0, start), hits.index_select(0, end)], dim=1)
        logits: Tensor = self.score(pairs).squeeze(1)
        return logits


def export(network: nn.Module, path: Path, features: Tensor, edges: Tensor | None = None) -> None:
    """Write a network as ONNX with the inputs ``features`` and ``edges``, of any length."""
    inputs = (features,) if edges is None else (features, edges)
    torch.onnx.export(
        network.eval(),
        inputs,
        path,
        input_names=["features", "edges"][: len(inputs)],
        dynamic_shapes=({0: "hits"}, {1: "edges"})[: len(inputs)],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def main(folder: Path) -> None:
    """Write the bundle."""
    folder.mkdir()
    features = torch.rand(50, FEATURES)
    edges = torch.stack([torch.arange(49), torch.arange(1, 50)])
    export(Embed(), folder / "embedding.onnx", features)
    export(ScoreEdges(steps=0), folder / "filter.onnx", features, edges)
    export(ScoreEdges(steps=4), folder / "gnn.onnx", features, edges)
    (folder / "bundle.toml").write_text(BUNDLE_FILE, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
