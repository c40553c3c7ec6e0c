"""Many events in flight, from one thread (gRPC)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from trackserve.client import failures
from trackserve.client.connection import (
    GRPC_OPTIONS,
    identified,
    model_input,
    outputs_of,
    split_url,
    strings,
    wanted_outputs,
)
from trackserve.client.core import (
    DEFAULT_TIMEOUT,
    DEFAULT_TRIES,
    DEFAULT_URL,
    ClientCore,
    as_tracks,
    new_request_id,
)
from trackserve.client.credentials import SECURE, Credentials
from trackserve.client.table import as_float32, hits_table
from trackserve.client.tracing import event_span, trace_headers
from trackserve.client.tries import WORTH_ANOTHER_TRY, Tries
from trackserve.contract.tensors import EXATRKX, TRACK_FINDING, Model
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import (
    InputError,
    ServerError,
    TrackserveError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from trackserve.client.fallback import Fallback
    from trackserve.columns import HitsLike
    from trackserve.contract.description import Description
    from trackserve.event import Float32, Tracks

R = TypeVar("R")


@dataclass(frozen=True)
class Answer:
    """What became of the event that came ``index``-th: its tracks, or why there are none."""

    index: int
    request_id: str
    outcome: Tracks | TrackserveError

    @property
    def tracks(self) -> Tracks:
        """The tracks; raises the error if there is one."""
        if isinstance(self.outcome, TrackserveError):
            raise self.outcome
        return self.outcome


class AsyncClient(ClientCore):
    """Connections to one or several servers, with at most ``concurrency`` events in flight.

    Everything else is as with :class:`trackserve.client.Client`, over gRPC only. Events go to the
    server with the fewest in flight. For use in one event loop, as ``async with AsyncClient(...)``.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        concurrency: int = 8,
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
        if concurrency < 1:
            message = f"concurrency is {concurrency}; expected at least 1"
            raise InputError(message)
        self.concurrency = concurrency
        self._addresses = []
        for each in self.urls:
            scheme, address = split_url(each)
            if SECURE.get(scheme, scheme) != "grpc":
                message = (
                    f"{each!r} is not gRPC, which the async client speaks; use Client for HTTP"
                )
                raise InputError(message)
            self._addresses.append(address)

    async def __aenter__(self) -> Self:
        longest = self._patience.longest_try
        self._connections = [
            _AsyncConnection(url, address, longest, self._credentials)
            for url, address in zip(self.urls, self._addresses, strict=True)
        ]
        self._places = asyncio.Semaphore(self.concurrency)
        self._describing = asyncio.Lock()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            await connection.close()

    async def description(self) -> Description:
        """Return what the server states about its model: columns, limits, bundle."""
        async with self._describing:
            if self._described is not None:
                return self._described
            try:
                first = self._read(await self._ask(lambda c, _: c.parameters(TRACK_FINDING)))
                model = TRACK_FINDING.of(first.suffix(self.bundle))
                if model is TRACK_FINDING:
                    return self._describe(first)
                return self._describe(self._read(await self._ask(lambda c, _: c.parameters(model))))
            except WORTH_ANOTHER_TRY:
                if self._fallback is None:
                    raise
                return self._fallback.description

    async def find_tracks(
        self,
        hits: HitsLike,
        *,
        parameters: bool = False,
        min_quality: float | None = None,
        request_id: str = "",
    ) -> Tracks:
        """Return the tracks of an event; see :meth:`trackserve.client.Client.find_tracks`."""
        wanted = Wanted(parameters, min_quality, self.bundle)
        table = hits_table(hits, self._described or await self.description())
        return await self._infer(self._model(TRACK_FINDING), table, wanted, request_id)

    async def find_tracks_from_features(
        self, features: NDArray[Any], *, request_id: str = ""
    ) -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``."""
        array = as_float32(features, "features", "[N, F]")
        if self.bundle is None:
            return await self._infer(EXATRKX, array, LABELS_ONLY, request_id)
        await self.description()  # of a named bundle's models the names have to be known
        wanted = Wanted(bundle=self.bundle)
        return await self._infer(self._model(EXATRKX), array, wanted, request_id)

    async def find_all(
        self,
        events: Iterable[HitsLike],
        *,
        parameters: bool = False,
        min_quality: float | None = None,
        ordered: bool = True,
    ) -> AsyncIterator[Answer]:
        """Yield an answer for each event, in the order of the events or else as they come.

        ``parameters`` and ``min_quality`` are as with :meth:`find_tracks`, for each event. Events are taken only as there is room for them. An event that fails is answered with its
        error, and the others go on.
        """
        source, wanted = enumerate(events), Wanted(parameters, min_quality)
        ahead = 2 * self.concurrency  # a slow event at the front leaves no server idle
        in_flight: deque[asyncio.Task[Answer]] = deque()
        try:
            while True:
                for index, hits in itertools.islice(source, ahead - len(in_flight)):
                    in_flight.append(asyncio.create_task(self._answer(index, hits, wanted)))
                if not in_flight:
                    return
                if ordered:
                    answer = await in_flight[0]
                    in_flight.popleft()
                    yield answer
                    continue
                done, _ = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    in_flight.remove(task)
                    yield task.result()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)

    async def _answer(self, index: int, hits: HitsLike, wanted: Wanted) -> Answer:
        request_id = new_request_id()
        try:
            tracks = await self.find_tracks(
                hits,
                parameters=wanted.parameters,
                min_quality=wanted.min_quality,
                request_id=request_id,
            )
        except TrackserveError as error:
            return Answer(index, request_id, error)
        return Answer(index, request_id, tracks)

    async def _infer(self, model: Model, array: Float32, wanted: Wanted, request_id: str) -> Tracks:
        request_id = request_id or new_request_id()

        def asking(
            form: tuple[Model, NDArray[Any]],
        ) -> Callable[[_AsyncConnection, float], Awaitable[Tracks]]:
            async def ask(connection: _AsyncConnection, timeout: float) -> Tracks:
                labels, *tables = await connection.infer(*form, timeout, request_id, wanted)
                return as_tracks(labels, array, connection.url, *tables)

            return ask

        async with self._places:
            *compact, plain = self._forms(model, array)
            try:
                with event_span(model.name, request_id, len(array)):
                    for form in compact:
                        with contextlib.suppress(InputError):
                            return await self._ask(asking(form))
                    return await self._ask(asking(plain))
            except WORTH_ANOTHER_TRY as error:
                if self._fallback is None:
                    error.request_id = request_id
                    raise
                return await asyncio.to_thread(self._fallback.find_tracks, model, array, wanted)
            except TrackserveError as error:
                error.request_id = request_id
                raise

    async def _ask(self, ask: Callable[[_AsyncConnection, float], Awaitable[R]]) -> R:
        """Return the first answer of a server."""
        if self._all_rest():
            message = "no server is available"
            raise UnreachableError(message)
        tries = Tries(self._patience, self._servers)
        while True:
            number, timeout = self._servers.choose(), tries.timeout()
            self._servers.asked(number)
            try:
                answer = await ask(self._connections[number], timeout)
            except WORTH_ANOTHER_TRY as error:
                self._servers.failed(number, error)
                await asyncio.sleep(tries.wait(error, fallback=self._fallback is not None))
            except BaseException:
                self._servers.dropped(number)
                raise
            else:
                self._servers.answered(number)
                return answer


class _AsyncConnection:
    """A gRPC connection that many tasks share."""

    def __init__(self, url: str, address: str, timeout: float, credentials: Credentials) -> None:
        self.url, self.timeout = url, timeout
        self._headers = credentials.headers()
        self._client = tritonclient.grpc.aio.InferenceServerClient(
            address, channel_args=GRPC_OPTIONS, **credentials.grpc_options(split_url(url)[0])
        )

    async def infer(
        self, model: Model, array: NDArray[Any], timeout: float, request_id: str, wanted: Wanted
    ) -> list[NDArray[Any]]:
        """Return the outputs of a model that are wanted for its one input."""
        async with self._explained(model.name, timeout):
            answer = await self._client.infer(
                model.name,
                [model_input(model, array)],
                client_timeout=timeout,
                parameters=wanted.request(),
                **identified(request_id, {**self._headers, **trace_headers()}),
            )
            outputs = outputs_of(answer, model, wanted)
        return wanted_outputs(outputs, model, wanted, self.url)

    async def parameters(self, model: Model) -> dict[str, str]:
        """Return the parameters of a model's configuration."""
        async with self._explained(model.name, self.timeout):
            answer = await self._client.get_model_config(
                model.name, as_json=True, client_timeout=self.timeout, headers=self._headers
            )
        return strings(answer["config"].get("parameters", {}))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _explained(self, model: str, timeout: float) -> AsyncIterator[None]:
        try:
            yield
        except InferenceServerException as error:
            if failures.is_without_model(error):
                raise await self._without(model) from None
            raise failures.explain(error, self.url, timeout) from None

    async def _without(self, model: str) -> ServerError:
        try:
            answer = await self._client.get_model_repository_index(
                as_json=True, client_timeout=self.timeout, headers=self._headers
            )
        except InferenceServerException:
            return failures.stopping(self.url, model)
        return failures.without_model(
            self.url, model, [m["name"] for m in answer.get("models", [])]
        )
