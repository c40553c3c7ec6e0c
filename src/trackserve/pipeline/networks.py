"""Running an ONNX network with onnxruntime: the reference engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import BundleError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime
    from numpy.typing import NDArray

    from trackserve.event import Float32, Int64

METADATA = "trackserve.network"
"""Key of the ONNX metadata in which training describes a network: its kind and sizes, as JSON."""


def load_network(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open the ONNX file for running on ``threads`` processor threads.

    Fewer are used where :func:`steady_threads` requires it. Raises :class:`BundleError` with onnxruntime's
    reason where it can't: an operator that it doesn't know, a newer version of the format.
    """
    if threads < 1:
        message = f"threads is {threads}; expected at least 1"
        raise InputError(message)
    import onnxruntime as ort  # noqa: PLC0415 - slow to import, and not every engine needs it

    options = ort.SessionOptions()
    content = path.read_bytes()
    options.intra_op_num_threads = steady_threads(content, threads)
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads of several model instances would take the processor from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for every status
        message = f"{path} can't be opened by onnxruntime: {first_line(error)}"
        raise BundleError(message) from None


def steady_threads(content: bytes, threads: int) -> int:
    """Return how many of these threads a network may run on and give the same answer every time.

    onnxruntime's sums over a graph (``ScatterND``, ``ScatterElements``) differ from run to run on
    several threads, also with its option for deterministic computing: such a network gets one.
    """
    return 1 if b"Scatter" in content else threads


def run_network(
    network: onnxruntime.InferenceSession,
    features: Float32,
    edges: Int64 | None = None,
    triplets: Int64 | None = None,
) -> Float32:
    """Return the network's one output: ``[N, D]`` from features, a logit each from the others too."""
    feeds: dict[str, NDArray[Any]] = {"features": np.ascontiguousarray(features)}
    if edges is not None:
        feeds["edges"] = edges
    if triplets is not None:
        feeds["triplets"] = triplets
    (output,) = network.run(None, feeds)
    result: Float32 = np.asarray(output, dtype=np.float32)
    return result if edges is None else result.reshape(-1)


def first_line(error: Exception) -> str:
    """Return the beginning of a library's error message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
