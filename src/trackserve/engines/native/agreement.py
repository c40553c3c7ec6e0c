"""Networks on the reference engine beside those on the kernels, and the check that both agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from trackserve.engines.native.networks import UnknownNetworkError
from trackserve.event import Graph
from trackserve.pipeline.networks import load_network, run_network
from trackserve.pipeline.triplets import triplet_logits

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.engines.native.library import Pairs
    from trackserve.engines.native.networks import NativeNetwork
    from trackserve.event import Float32
    from trackserve.pipeline.features import FeatureColumns

TOLERANCE = 1e-4
"""Largest difference of a float32 output from the reference's, relative to the largest output."""


class Network(Protocol):
    """A network that takes edges, and triplets, as two int32 arrays."""

    def __call__(
        self,
        features: Float32,
        edges: Pairs | None = None,
        triplets: Pairs | None = None,
        *,
        threads: int = 1,
    ) -> Float32:
        """Return ``[N, D]`` from features alone, otherwise a logit for each edge or triplet."""


class ReferenceNetwork:
    """A network on onnxruntime that takes edges as the native engine has them."""

    def __init__(self, path: Path, threads: int) -> None:
        self.name = path.stem
        self._session = load_network(path, threads)

    def __call__(
        self,
        features: Float32,
        edges: Pairs | None = None,
        triplets: Pairs | None = None,
        *,
        threads: int = 1,
    ) -> Float32:
        """Return ``[N, D]`` from features alone, otherwise a logit for each edge or triplet."""
        del threads  # fixed when the network was loaded
        if edges is None:
            return run_network(self._session, features)
        if not len(edges[0]):
            return np.empty(0, np.float32)
        ends = np.stack(edges).astype(np.int64)
        if triplets is None:
            return run_network(self._session, features, ends)
        links = np.stack(triplets).astype(np.int64)
        if self.name == "triplets":
            return triplet_logits(self._session, Graph(features, ends), links)
        return run_network(self._session, features, ends, links)


def check_agreement(native: NativeNetwork, reference: Network, columns: FeatureColumns) -> None:
    """Raise :class:`UnknownNetworkError` unless both give the same outputs for a made-up event.

    A file's metadata may describe another network than the one that its graph computes.
    """
    rng = np.random.default_rng(0)
    hits = 64
    features = rng.random((hits, len(columns.columns)), np.float32)
    features[:, columns.columns.index("z")] -= np.float32(0.5)
    given: list[Pairs] = []
    if native.family.kind != "embedding":
        inner = np.repeat(np.arange(hits - 4, dtype=np.int32), 4)
        outer = inner + np.tile(np.arange(1, 5, dtype=np.int32), hits - 4)
        given.append((inner, outer))
    if native.family.kind in {"triplets", "gnn"}:
        first, second = np.nonzero(outer[:, None] == inner)
        given.append((first.astype(np.int32), second.astype(np.int32)))
    found, expected = native(features, *given), reference(features, *given)
    difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    if not difference <= TOLERANCE * max(1, np.abs(expected).max()):
        message = f"its output differs from the described network's by {difference:.2g}"
        raise UnknownNetworkError(message)
