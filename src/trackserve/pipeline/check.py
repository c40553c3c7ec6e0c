"""Whether the networks of a bundle answer as the pipeline counts on.

The dimensions that an ONNX file declares may be open or wrong, so this asks the networks themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import BundleError
from trackserve.pipeline.features import feature_matrix
from trackserve.pipeline.networks import first_line, load_network
from trackserve.pipeline.stages import StageContext, run_stages

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trackserve.bundle import Bundle
    from trackserve.event import Float32

COUNTS = (0, 1, 300)
"""Hits of the events that a bundle is tried on; each hit but one has an edge, each edge but one goes on in a triplet."""


def check_answers(bundle: Bundle) -> None:
    """Run a bundle on no hits, one hit and a few hundred random ones.

    Raises :class:`BundleError` that names the network which fails, or whose answer has the wrong
    shape or type or is not finite.
    """
    context = StageContext.open(bundle)
    for hits in COUNTS:
        features = feature_matrix(_random_hits(bundle, hits), bundle.features)
        first = np.arange(max(0, hits - 1))
        edges = np.stack([first, first + 1])
        _check(bundle.embedding_path, {"features": features}, (hits, bundle.embedding_dimension))
        if len(first):
            pairs = {"features": features, "edges": edges}
            _check(bundle.filter_path, pairs, (len(first),))
            if bundle.triplets is not None:
                second = first[:-1]
                triplets = np.stack([second, second + 1])
                pairs |= {"triplets": triplets}
                _check(bundle.triplets_path, pairs, (len(second),))
            _check(bundle.gnn_path, pairs, (len(first),))
        run_stages(context, features)


def _random_hits(bundle: Bundle, hits: int) -> Float32:
    """Hits ``[N, C]`` spread over a tracking detector, with small whole numbers for what is not a position."""
    random = np.random.default_rng(hits)
    columns = bundle.features.wire_columns
    table = random.integers(1, 10, (hits, len(columns))).astype(np.float32)
    table[:, :2] = random.uniform(-700, 700, (hits, 2))
    table[:, 2] = random.uniform(-3000, 3000, hits)
    return table


def _check(path: Path, feeds: dict[str, NDArray[Any]], expected: tuple[int, ...]) -> None:
    """Raise unless a network answers with finite float32 of this shape; ``[E]`` may be ``[E, 1]``."""
    question = " and ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    try:
        (answer,) = load_network(path, threads=1).run(None, feeds)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime has a class of its own for every status
        message = f"{path} fails on {question}: {first_line(error)}"
        raise BundleError(message) from None
    if answer.dtype != np.float32 or answer.shape not in {expected, (*expected, 1)[:2]}:
        message = (
            f"{path} answers {question} with {answer.dtype} {list(answer.shape)}; "
            f"expected float32 {list(expected)}"
        )
        raise BundleError(message)
    if not np.isfinite(answer).all():
        message = f"{path} answers {question} with {answer[~np.isfinite(answer)][0]}; expected finite numbers"
        raise BundleError(message)
