"""Network 1: features to points in a space where hits of one track are neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.pipeline.networks import run_network

if TYPE_CHECKING:
    import onnxruntime

    from trackserve.event import Float32


def embed(network: onnxruntime.InferenceSession, features: Float32) -> Float32:
    """Return the embedding ``[N, D]`` of features ``[N, F]``."""
    return run_network(network, features)
