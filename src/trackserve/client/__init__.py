"""Ask a server for tracks: numpy and tritonclient, nothing of the pipeline.

tracks = find_tracks(hits, "localhost:8001")

with Client("localhost:8001") as client:  # keeps the connection for many events
    tracks = client.find_tracks(hits)
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trackserve.client.connection import connect
from trackserve.errors import InputError, ServerError
from trackserve.event import Float32, Hits, Tracks
from trackserve.triton.tensors import EXATRKX, TRACK_FINDING, Description, Model

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

DEFAULT_URL = "localhost:8001"
DEFAULT_TIMEOUT = 60.0

__all__ = ["Client", "find_tracks"]


def find_tracks(
    hits: Hits | NDArray[Any], url: str = DEFAULT_URL, *, timeout: float = DEFAULT_TIMEOUT
) -> Tracks:
    """Return the tracks that the server at ``url`` finds in one event; see :class:`Client`."""
    with Client(url, timeout=timeout) as client:
        return client.find_tracks(hits)


class Client:
    """A connection to a server, for one event after the other.

    ``url`` is ``host:port`` or ``grpc://host:port`` for gRPC, ``http://host:port`` for HTTP.
    ``timeout`` is how long (s) to wait for each answer. Raises :class:`ServerError` for a server
    that can't be reached, fails or doesn't have the model, :class:`RefusedError` for one that
    declines because its queue is full or a request has waited there too long. For use by one thread.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.url = url
        self._connection = connect(url, timeout)

    @cached_property
    def description(self) -> Description:
        """What the server says about its model: columns, limits, bundle."""
        parameters = self._connection.parameters(TRACK_FINDING)
        try:
            return Description.from_parameters(parameters)
        except (KeyError, ValueError):
            message = (
                f"the model {TRACK_FINDING.name!r} at {self.url} is not one of trackserve: it "
                "doesn't say which columns it takes"
            )
            raise ServerError(message) from None

    def find_tracks(self, hits: Hits | NDArray[Any]) -> Tracks:
        """Return the tracks of an event.

        ``hits`` are :class:`Hits`, or numbers ``[N, C]`` in the columns that ``description`` names,
        or ``[N, 3]`` with x, y, z in mm. Columns that these hits don't have are filled with the
        values that the bundle gives for that. Raises :class:`InputError` for hits that can't be used.
        """
        return self._infer(TRACK_FINDING, self._table(hits))

    def find_tracks_from_features(self, features: NDArray[Any]) -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``."""
        return self._infer(EXATRKX, _as_float32(features, "features", "[N, F]"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _infer(self, model: Model, array: Float32) -> Tracks:
        labels = self._connection.infer(model, array)
        if labels.shape != array.shape[:1]:
            message = (
                f"{self.url} answered {array.shape[0]} hits with labels of shape "
                f"{list(labels.shape)}; expected one label for each hit"
            )
            raise ServerError(message)
        return Tracks(labels)

    def _table(self, hits: Hits | NDArray[Any]) -> Float32:
        """Return the hits in the model's columns ``[N, C]``."""
        columns = self.description.columns
        if isinstance(hits, Hits):
            parts = [part for part in (hits, hits.modules, hits.clusters) if part is not None]
            sent = [c for c in columns if any(hasattr(part, c) for part in parts)]
            table = hits.table(sent)
        else:
            table = _as_float32(hits, "hits", f"[N, {len(columns)}]: {', '.join(columns)}")
            if table.shape[1] not in {3, len(columns)}:
                message = (
                    f"hits have {table.shape[1]} columns; this model takes {', '.join(columns)}, "
                    "or x, y, z alone"
                )
                raise InputError(message)
            sent = list(columns[: table.shape[1]])
        return table if len(sent) == len(columns) else self._with_absent_columns(table, sent)

    def _with_absent_columns(self, table: Float32, sent: list[str]) -> Float32:
        says = self.description
        if missing := [c for c in says.columns if c not in sent and c not in says.absent]:
            message = (
                f"these hits have no {', '.join(missing)}, which the model at {self.url} needs"
            )
            raise InputError(message)
        filled = np.empty((len(table), len(says.columns)), np.float32)
        for i, column in enumerate(says.columns):
            filled[:, i] = table[:, sent.index(column)] if column in sent else says.absent[column]
        return filled


def _as_float32(array: object, name: str, expected: str) -> Float32:
    numbers = np.asarray(array)
    if numbers.ndim != 2 or numbers.dtype.kind not in "fiu":
        message = f"{name} are {numbers.dtype} {list(numbers.shape)}; expected numbers of shape {expected}"
        raise InputError(message)
    return np.ascontiguousarray(numbers, dtype=np.float32)
