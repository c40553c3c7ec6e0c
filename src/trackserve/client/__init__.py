"""Ask servers for tracks: numpy and tritonclient, nothing of the pipeline.

tracks = find_tracks(hits, "localhost:8001")

with Client("localhost:8001") as client:  # keeps the connection for many events
    tracks = client.find_tracks(hits)

async with AsyncClient("one:8001,two:8001", concurrency=8) as client:
    async for answer in client.find_all(events):
        tracks = answer.tracks
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from trackserve.client.asynchronous import Answer, AsyncClient
from trackserve.client.connection import Connection, connect
from trackserve.client.core import (
    DEFAULT_TIMEOUT,
    DEFAULT_TRIES,
    DEFAULT_URL,
    ClientCore,
    as_tracks,
    new_request_id,
)
from trackserve.client.credentials import Credentials
from trackserve.client.table import as_float32, hits_table
from trackserve.client.tracing import event_span
from trackserve.client.tries import WORTH_ANOTHER_TRY, Tries
from trackserve.contract.tensors import EXATRKX, TRACK_FINDING, Model
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import InputError, TrackserveError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from trackserve.client.fallback import Fallback
    from trackserve.columns import HitsLike
    from trackserve.contract.description import Description
    from trackserve.event import Float32, Tracks

R = TypeVar("R")

__all__ = ["DEFAULT_TIMEOUT", "DEFAULT_TRIES", "DEFAULT_URL"]
__all__ += ["Answer", "AsyncClient", "Client", "Credentials", "find_tracks"]


def find_tracks(
    hits: HitsLike,
    url: str | Sequence[str] = DEFAULT_URL,
    *,
    parameters: bool = False,
    min_quality: float | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    bundle: str | None = None,
) -> Tracks:
    """Return the tracks that the server at ``url`` finds in one event; see :class:`Client`."""
    with Client(url, timeout=timeout, bundle=bundle) as client:
        return client.find_tracks(hits, parameters=parameters, min_quality=min_quality)


class Client(ClientCore):
    """A connection to a server, or to one of several, for one event after the other.

    A ``url`` is ``host:port`` or ``grpc://host:port`` for gRPC, ``http://host:port`` for HTTP, with TLS
    ``grpcs://`` and ``https://``; ``credentials`` (default: the environment's) define whom to trust and
    what to show. Give several in a list or with commas. A server that fails or refuses is asked again after a rest, or
    the next one is asked at once: up to ``tries`` times each, within ``timeout`` (s) for an event,
    ``try_timeout`` (s) for one try. Where nothing has ever listened, the first event fails within
    seconds; with ``wait`` it waits for a server that is still to start. A ``fallback`` is asked where
    no server is available: nobody then waits for servers. With ``compact`` positions are rounded to that
    many mm (0.01 changes no physics) and go, like the labels, in half the bytes, to servers that take
    that; others get the hits as they are. ``bundle`` names the one that is to answer, of a server that has
    several (``description.bundles``); the first one if None. For use by one thread.

    Raises :class:`UnreachableError` for servers that can't be reached, :class:`RefusedError` for
    ones that are full, other :class:`ServerError` for one that fails or doesn't have the model.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tries: int = DEFAULT_TRIES,
        try_timeout: float | None = None,
        fallback: Fallback | None = None,
        wait: bool = False,
        credentials: Credentials | None = None,
        compact: float | None = None,
        bundle: str | None = None,
    ) -> None:
        super().__init__(
            url,
            timeout=timeout,
            tries=tries,
            try_timeout=try_timeout,
            fallback=fallback,
            wait=wait,
            credentials=credentials,
            compact=compact,
            bundle=bundle,
        )
        self.request_id = ""
        """The name of the last request, as in the server's log."""
        self._connections = [
            connect(each, self._patience.longest_try, self._credentials) for each in self.urls
        ]

    @property
    def description(self) -> Description:
        """The served model's columns, limits and bundle."""
        if self._described is not None:
            return self._described
        try:
            first = self._read(self._ask(lambda c, _: c.parameters(TRACK_FINDING)))
            model = TRACK_FINDING.of(first.suffix(self.bundle))
            if model is TRACK_FINDING:
                return self._describe(first)
            return self._describe(self._read(self._ask(lambda c, _: c.parameters(model))))
        except WORTH_ANOTHER_TRY:
            if self._fallback is None:
                raise
            return self._fallback.description

    def find_tracks(
        self,
        hits: HitsLike,
        *,
        parameters: bool = False,
        min_quality: float | None = None,
        request_id: str = "",
    ) -> Tracks:
        """Return the tracks of an event, with what is fitted of each where ``parameters`` are wanted.

        ``hits`` are :class:`Hits`, anything with named columns (a dict of arrays, a data frame),
        numbers ``[N, C]`` in the columns that ``description`` names, or ``[N, 3]`` with x, y, z in
        mm. Columns that these hits don't have are filled with the
        values that the bundle gives for that. Tracks of a quality below ``min_quality``, in [0, 1),
        are dropped (default: ``description.min_quality``). ``request_id`` (one is drawn if none is given) names
        the request in the server's log and in errors. Raises :class:`InputError` for hits that
        can't be used, and for what the served bundle can't give.
        """
        wanted = Wanted(parameters, min_quality, self.bundle)
        table = hits_table(hits, self.description)
        return self._infer(self._model(TRACK_FINDING), table, wanted, request_id)

    def find_tracks_from_features(self, features: NDArray[Any], *, request_id: str = "") -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``."""
        array = as_float32(features, "features", "[N, F]")
        if self.bundle is None:
            return self._infer(EXATRKX, array, LABELS_ONLY, request_id)
        _ = self.description  # of a named bundle's models the names have to be known
        return self._infer(self._model(EXATRKX), array, Wanted(bundle=self.bundle), request_id)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _infer(self, model: Model, array: Float32, wanted: Wanted, request_id: str) -> Tracks:
        self.request_id = request_id = request_id or new_request_id()

        def asking(form: tuple[Model, NDArray[Any]]) -> Callable[[Connection, float], Tracks]:
            def ask(connection: Connection, timeout: float) -> Tracks:
                labels, *tables = connection.infer(
                    *form, timeout=timeout, request_id=request_id, wanted=wanted
                )
                return as_tracks(labels, array, connection.url, *tables)

            return ask

        *compact, plain = self._forms(model, array)
        try:
            with event_span(model.name, request_id, len(array)):
                for form in compact:
                    with suppress(InputError):
                        return self._ask(asking(form))
                return self._ask(asking(plain))
        except WORTH_ANOTHER_TRY as error:
            if self._fallback is None:
                error.request_id = request_id
                raise
            return self._fallback.find_tracks(model, array, wanted)
        except TrackserveError as error:
            error.request_id = request_id
            raise

    def _ask(self, ask: Callable[[Connection, float], R]) -> R:
        """Return the first answer of a server."""
        if self._all_rest():
            message = "no server is available"
            raise UnreachableError(message)
        tries = Tries(self._patience, self._servers)
        while True:
            number, timeout = self._servers.choose(), tries.timeout()
            self._servers.asked(number)
            try:
                answer = ask(self._connections[number], timeout)
            except WORTH_ANOTHER_TRY as error:
                self._servers.failed(number, error)
                time.sleep(tries.wait(error, fallback=self._fallback is not None))
            except BaseException:
                self._servers.dropped(number)
                raise
            else:
                self._servers.answered(number)
                return answer
