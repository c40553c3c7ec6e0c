"""Networks of the native engine's family with random numbers, as training exports them.

An export from torch takes seconds, so they are kept beside this file. It writes them again:

    PYTHONPATH=tests python tests/engines/native/exported_family.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from known_networks import COLUMNS, describe, inputs_of, network
from tiny_bundle import straight_tracks
from trackserve.pipeline.features import hit_features

FAMILY = Path(__file__).with_name("exported_family")
SIZES = {
    "embedding": {"width": 32, "layers": 2, "dimension": 4},
    "filter": {"width": 16, "layers": 2},
    "triplets": {"width": 16, "layers": 2},
    "gnn": {"width": 16, "steps": 2},
}


def export() -> None:
    """Export a network of each kind."""
    from trackserve.training.export import export_network

    features = hit_features(straight_tracks(tracks=30), COLUMNS)
    edges = np.stack([np.arange(299), np.arange(1, 300)])
    triplets = np.stack([np.arange(298), np.arange(1, 299)])
    FAMILY.mkdir(exist_ok=True)
    for kind, sizes in SIZES.items():
        _, *pairs = inputs_of(kind, features, edges, triplets)
        export_network(
            network(kind, COLUMNS, **sizes),
            FAMILY / f"{kind}.onnx",
            output="output",
            description=describe(kind, COLUMNS, **sizes),
            features=features,
            **dict(zip(("edges", "triplets"), pairs, strict=False)),
        )


if __name__ == "__main__":
    export()
