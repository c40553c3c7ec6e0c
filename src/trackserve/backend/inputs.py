"""The input of a request to a served model: as it is, or in the compact form, which is unpacked by who works on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb

from trackserve.contract.compact import decode_hits, encode_labels, hits_in
from trackserve.contract.tensors import COMPACT_LABELS, HITS, LABELS
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.backend.queue import Request
    from trackserve.contract.description import Description
    from trackserve.contract.tensors import Model
    from trackserve.event import Float32


@dataclass(frozen=True)
class Given:
    """A request's input, how many hits it has, and whether it is in the compact form."""

    tensor: Any
    hits: int
    compact: bool


def given(request: Any, model: Model, says: Description) -> Given:
    """Return a request's one input.

    ``says`` is what the model states about itself. Raises :class:`InputError` unless one came that the
    model takes, and for compact hits whose head is wrong; the rest is checked when their turn comes.
    """
    (plain,) = model.inputs
    names = [plain.name, *(tensor.name for tensor in (model.compact or ())[:1])]
    tensors = [pb.get_input_tensor_by_name(request, name) for name in names]
    came = [tensor for tensor in tensors if tensor is not None]
    if len(came) != 1:
        message = f"the request has {len(came)} of the inputs {', '.join(names)}; expected one"
        raise InputError(message)
    if tensors[0] is not None:
        return Given(came[0], came[0].shape()[0], compact=False)
    hits, columns = hits_in(came[0].as_numpy())
    if hits > says.max_hits:
        message = f"the event has {hits:,} hits; this server takes at most {says.max_hits:,}"
        raise InputError(message)
    if columns != len(says.columns):
        message = (
            f"the compact hits have {columns} columns; expected {len(says.columns)}: "
            f"{', '.join(says.columns)}"
        )
        raise InputError(message)
    return Given(came[0], hits, compact=True)


def hits_of(request: Request) -> Float32:
    """Return the rows of a request's input; raises :class:`InputError` for compact hits that are none."""
    if request.compact:
        return decode_hits(request.tensor.as_numpy())
    rows: Float32 = request.tensor.as_numpy()
    return rows


def tensor_of(request: Request) -> Any:
    """Return a request's input as the stages take it."""
    return pb.Tensor(HITS.name, hits_of(request)) if request.compact else request.tensor


def in_compact_form(outputs: Sequence[Any]) -> list[Any]:
    """Return a model's outputs with the labels in fewer bytes."""
    return [
        pb.Tensor(COMPACT_LABELS.name, encode_labels(tensor.as_numpy()))
        if tensor.name() == LABELS.name
        else tensor
        for tensor in outputs
    ]
