"""Requests as a load sends them: made once, sent many times, over gRPC or HTTP.

What a request holds is written when the connection opens, so that the load costs the machine little
beside the server. With shared memory the hits and the labels stay in a region that the server maps;
each request in flight has a slot of its own there for its labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
from abc import ABC, abstractmethod
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from trackserve.client.connection import GRPC_OPTIONS, split_url
from trackserve.client.failures import explain, no_answer, unreachable
from trackserve.client.http import HEAD_LENGTH, Http, check, inference_head, inference_path
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.errors import InputError, ServerError, TrackserveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from trackserve.contract.tensors import Model
    from trackserve.event import Float32, Int64

(LABELS,) = TRACK_FINDING.outputs
SERVICE = "/inference.GRPCInferenceService"
LABEL_BYTES = 8


class Wire(ABC):
    """A connection of one process; ``tables`` are what a model takes of the events.

    That is hits ``[N, C]`` in its columns, or scaled features ``[N, F]``.
    ``slots`` requests at most are in flight through shared memory, 0 sends the tensors themselves.
    ``timeout`` (s) is for one request. A context manager of one event loop.
    """

    def __init__(
        self,
        url: str,
        tables: Sequence[Float32],
        *,
        timeout: float,
        slots: int = 0,
        model: Model = TRACK_FINDING,
    ) -> None:
        self.url, self.timeout, self._model = url, timeout, model
        _, self._address = split_url(url)
        self._tables = [np.ascontiguousarray(table, np.float32) for table in tables]
        self._region = _Region(self._tables, slots) if slots else None

    @abstractmethod
    async def send(self, event: int, slot: int) -> bytes:
        """Ask for the tracks of an event and return the answer as it came; raises our errors."""

    @abstractmethod
    def blocking(self) -> AbstractContextManager[Callable[[int, int], bytes]]:
        """Return what does the same in a thread, which waits for the answer."""

    def read(self, answer: bytes, event: int, slot: int) -> Int64:
        """Return the labels ``[N]`` of an answer."""
        hits = len(self._tables[event])
        raw = self._region.labels(slot, hits) if self._region else self._raw(answer, hits)
        labels = np.frombuffer(raw, np.int64)
        if len(labels) != hits:
            message = f"{self.url} answered {hits} hits with {len(labels)} labels"
            raise ServerError(message)
        return labels

    @abstractmethod
    def _raw(self, answer: bytes, hits: int) -> bytes: ...

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    async def _share(self, region: _Region, *, register: bool) -> None: ...

    async def slot(self) -> int:
        """Return a free slot, once there is one; 0 without shared memory."""
        return await self._region.free.get() if self._region else 0

    def give_back(self, slot: int) -> None:
        """Free a slot."""
        if self._region:
            self._region.free.put_nowait(slot)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
            if self._region:
                await self._share(self._region, register=True)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._region and self._region.registered:
                await self._share(self._region, register=False)
        finally:
            await self._close()
            if self._region:
                self._region.close()


def open_wire(
    url: str,
    tables: Sequence[Float32],
    *,
    timeout: float,
    slots: int = 0,
    model: Model = TRACK_FINDING,
) -> Wire:
    """Return what speaks the protocol of a URL, not yet open."""
    scheme, _ = split_url(url)
    kind = GrpcWire if scheme == "grpc" else HttpWire
    return kind(url, tables, timeout=timeout, slots=slots, model=model)


def label_bytes(tables: Sequence[Float32]) -> int:
    """Return the bytes of the labels of the largest event."""
    return LABEL_BYTES * max(1, *map(len, tables))


class _Region:
    """System shared memory: all events' hits, then a slot for the labels of each request in flight."""

    def __init__(self, tables: Sequence[Float32], slots: int) -> None:
        ends = np.cumsum([0, *(table.nbytes for table in tables)])
        self.offsets: list[int] = ends[:-1].tolist()
        self.stride = label_bytes(tables)
        self._first = -(-int(ends[-1]) // 64) * 64
        self.bytes = self._first + self.stride * slots
        self.name = f"trackserve_load_{secrets.token_hex(6)}"
        self.registered = False
        self._memory = SharedMemory(self.name, create=True, size=max(self.bytes, 1))
        assert self._memory.buf is not None
        self._view = memoryview(self._memory.buf)
        for table, offset in zip(tables, self.offsets, strict=True):
            self._view[offset : offset + table.nbytes] = table.tobytes()
        self.free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self.free.put_nowait(slot)

    def offset(self, slot: int) -> int:
        return self._first + slot * self.stride

    def labels(self, slot: int, hits: int) -> bytes:
        start = self.offset(slot)
        return bytes(self._view[start : start + LABEL_BYTES * hits])

    def close(self) -> None:
        self._view.release()
        self._memory.close()
        self._memory.unlink()


class GrpcWire(Wire):
    """gRPC, one connection for all requests of the process."""

    # A channel that another one of ours could share would not be this one's alone.
    _OPTIONS = (*GRPC_OPTIONS, ("grpc.use_local_subchannel_pool", 1))

    async def _open(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._address, options=self._OPTIONS)
        self._infer = self._channel.unary_unary(f"{SERVICE}/ModelInfer")
        self._requests = [self._request(i) for i in range(len(self._tables))]

    async def _close(self) -> None:
        await self._channel.close()

    def _request(self, event: int) -> bytes:
        """Return a request without its output, written."""
        table = self._tables[event]
        request = pb.ModelInferRequest(model_name=self._model.name)
        (given,) = self._model.inputs
        sent = request.inputs.add(name=given.name, datatype=given.dtype, shape=table.shape)
        if self._region is None:
            request.outputs.add(name=LABELS.name)
            request.raw_input_contents.append(table.tobytes())
        else:
            _shared(sent, self._region.name, self._region.offsets[event], table.nbytes)
        written: bytes = request.SerializeToString()
        return written

    def _message(self, event: int, slot: int) -> bytes:
        request = self._requests[event]
        if self._region is not None:
            size = LABEL_BYTES * len(self._tables[event])
            only_output = pb.ModelInferRequest()
            output = only_output.outputs.add(name=LABELS.name)
            _shared(output, self._region.name, self._region.offset(slot), size)
            request += only_output.SerializeToString()  # protobuf: parts in a row are one message
        return request

    async def send(self, event: int, slot: int) -> bytes:  # noqa: D102 - as in the base class
        try:
            answer: bytes = await self._infer(self._message(event, slot), timeout=self.timeout)
        except grpc.aio.AioRpcError as error:
            raise self._explained(error) from None
        return answer

    @contextlib.contextmanager
    def blocking(self) -> Iterator[Callable[[int, int], bytes]]:  # noqa: D102 - as in the base class
        with grpc.insecure_channel(self._address, options=self._OPTIONS) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")

            def send(event: int, slot: int) -> bytes:
                try:
                    answer: bytes = infer(self._message(event, slot), timeout=self.timeout)
                except grpc.RpcError as error:
                    raise self._explained(error) from None
                return answer

            yield send

    def _explained(self, error: Any) -> TrackserveError:
        failure = InferenceServerException(str(error.details()), str(error.code()))
        return explain(failure, self.url, self.timeout)

    def _raw(self, answer: bytes, hits: int) -> bytes:
        del hits
        raw: bytes = pb.ModelInferResponse.FromString(answer).raw_output_contents[0]
        return raw

    async def _share(self, region: _Region, *, register: bool) -> None:
        what = "Register" if register else "Unregister"
        message: Any = getattr(pb, f"SystemSharedMemory{what}Request")(name=region.name)
        if register:
            message.key, message.byte_size = f"/{region.name}", region.bytes
        call = self._channel.unary_unary(f"{SERVICE}/SystemSharedMemory{what}")
        try:
            await call(message.SerializeToString(), timeout=self.timeout)
        except grpc.aio.AioRpcError as error:
            if not register:
                return  # the server is gone, and what it knew with it
            raise _not_shared(self.url, self._explained(error)) from None
        region.registered = register


class HttpWire(Wire):
    """HTTP/1.1, a connection for each request in flight."""

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            f"http://{self._address}",
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.timeout),
        )

    async def _close(self) -> None:
        await self._session.close()

    def _head(self, event: int, slot: int) -> bytes:
        table, region = self._tables[event], self._region
        if region is None:
            return inference_head(self._model, table.shape, {"binary_data_size": table.nbytes})
        sent = _region_parameters(region.name, region.offsets[event], table.nbytes)
        wanted = _region_parameters(region.name, region.offset(slot), LABEL_BYTES * len(table))
        return inference_head(self._model, table.shape, sent, wanted)

    def _message(self, event: int, slot: int) -> tuple[str, bytes, dict[str, str]]:
        head = self._head(event, slot)
        body = head if self._region else head + self._tables[event].tobytes()
        return inference_path(self._model), body, {HEAD_LENGTH: str(len(head))}

    async def send(self, event: int, slot: int) -> bytes:  # noqa: D102 - as in the base class
        return await self._post(*self._message(event, slot))

    @contextlib.contextmanager
    def blocking(self) -> Iterator[Callable[[int, int], bytes]]:  # noqa: D102 - as in the base class
        with contextlib.closing(Http(self._address, self.timeout)) as connection:

            def send(event: int, slot: int) -> bytes:
                try:
                    return connection.ask("POST", *self._message(event, slot), self.timeout)[0]
                except InferenceServerException as error:
                    raise explain(error, self.url, self.timeout) from None
                except (OSError, http.client.HTTPException) as error:
                    raise self._broken(error) from None

            yield send

    def _raw(self, answer: bytes, hits: int) -> bytes:
        return answer[len(answer) - LABEL_BYTES * hits :]

    async def _share(self, region: _Region, *, register: bool) -> None:
        what = "register" if register else "unregister"
        body = {"key": f"/{region.name}", "byte_size": region.bytes} if register else {}
        path = f"/v2/systemsharedmemory/region/{region.name}/{what}"
        try:
            await self._post(path, json.dumps(body).encode(), {})
        except (ServerError, InputError) as error:
            if not register:
                return
            raise _not_shared(self.url, error) from None
        region.registered = register

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            async with self._session.post(path, data=body, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from None
        return self._checked(response.status, answer)

    def _broken(self, error: Exception) -> ServerError:
        if isinstance(error, TimeoutError):
            return no_answer(self.url, self.timeout)
        return unreachable(self.url, str(error) or type(error).__name__)

    def _checked(self, status: int, answer: bytes) -> bytes:
        """Return an answer if it is one; raises the server's error otherwise."""
        try:
            check(status, answer)
        except InferenceServerException as error:
            raise explain(error, self.url, self.timeout) from None
        return answer


def _region_parameters(name: str, offset: int, size: int) -> dict[str, Any]:
    return {
        "shared_memory_region": name,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def _shared(tensor: Any, name: str, offset: int, size: int) -> None:
    for parameter, value in _region_parameters(name, offset, size).items():
        field = "string_param" if isinstance(value, str) else "int64_param"
        setattr(tensor.parameters[parameter], field, value)


def _not_shared(url: str, error: Exception) -> ServerError:
    message = (
        f"{url} doesn't take shared memory ({error}); serve with --shared-memory, on this machine"
    )
    return ServerError(message)
