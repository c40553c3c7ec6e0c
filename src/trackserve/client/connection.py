"""Talking to a Triton server over gRPC or HTTP, with its failures as this package's errors."""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
from abc import ABC, abstractmethod
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import tritonclient.grpc
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from trackserve.client import failures
from trackserve.client.credentials import SECURE, Credentials
from trackserve.client.http import Http
from trackserve.client.tracing import trace_headers
from trackserve.contract.wanted import LABELS_ONLY
from trackserve.errors import InputError, InputWarning, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trackserve.contract.tensors import Model
    from trackserve.contract.wanted import Wanted

RAW_INPUT_CONTENTS = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])
"""The tag of a request's tensor in protobuf: the number of the field, and that a length follows."""

GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # After a failure gRPC itself waits before it connects again, for up to two minutes by default.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def split_url(url: str) -> tuple[str, str]:
    """Return the scheme, ``grpc`` if none, and host:port; raises :class:`InputError` for others.

    ``unix:PATH`` is HTTP at a socket of this machine.
    """
    if url.startswith("unix:"):
        return "http", url
    scheme, separator, address = url.rpartition("://")
    scheme = scheme if separator else "grpc"
    if scheme not in {"grpc", "http", *SECURE} or not re.fullmatch(r"[^/\s,]+:\d{1,5}/?", address):
        message = (
            f"{url!r} is not a server; expected host:port, grpc://host:port or http://host:port, "
            "with TLS grpcs:// or https://"
        )
        raise InputError(message)
    return scheme, address.rstrip("/")


def connect(url: str, timeout: float, credentials: Credentials | None = None) -> Connection:
    """Return a connection; ``timeout`` (s) holds for each call that isn't given another one.

    Without ``credentials`` those of the environment are used.
    """
    scheme, address = split_url(url)
    kind = GrpcConnection if SECURE.get(scheme, scheme) == "grpc" else HttpConnection
    return kind(url, address, timeout, credentials or Credentials.from_environment())


class Connection(ABC):
    """A connection by one of the two protocols."""

    _client: Any

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout

    @abstractmethod
    def _infer(
        self, model: Model, array: NDArray[Any], timeout: float, request_id: str, wanted: Wanted
    ) -> Mapping[str, NDArray[Any]]: ...

    @abstractmethod
    def _config(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _models(self) -> list[Mapping[str, str]]: ...

    def infer(
        self,
        model: Model,
        array: NDArray[Any],
        *,
        timeout: float | None = None,
        request_id: str = "",
        wanted: Wanted = LABELS_ONLY,
    ) -> list[NDArray[Any]]:
        """Return the outputs of a model that are wanted for its one input."""
        timeout = self.timeout if timeout is None else timeout
        with self._explained(model.name, timeout):
            outputs = self._infer(model, array, timeout, request_id, wanted)
        return wanted_outputs(outputs, model, wanted, self.url)

    def parameters(self, model: Model) -> dict[str, str]:
        """Return the parameters of a model's configuration."""
        return strings(self.config(model.name).get("parameters", {}))

    def config(self, model: str) -> Mapping[str, Any]:
        """Return a model's configuration (Triton's ``ModelConfig``)."""
        with self._explained(model, self.timeout):
            return self._config(model)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _explained(self, model: str, timeout: float) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            if failures.is_without_model(error):
                raise self._without(model) from None
            raise failures.explain(error, self.url, timeout) from None
        except TimeoutError:
            raise failures.no_answer(self.url, timeout) from None
        except (OSError, HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise failures.unreachable(self.url, reason[:200]) from None

    def _without(self, model: str) -> ServerError:
        try:
            names = [each["name"] for each in self._models()]
        except (InferenceServerException, OSError, HTTPException):
            return failures.stopping(self.url, model)
        return failures.without_model(self.url, model, names)


class GrpcConnection(Connection):
    """gRPC: one connection that may carry many requests."""

    def __init__(self, url: str, address: str, timeout: float, credentials: Credentials) -> None:
        super().__init__(url, timeout)
        self._headers = credentials.headers()
        self._client = tritonclient.grpc.InferenceServerClient(
            address, channel_args=GRPC_OPTIONS, **credentials.grpc_options(split_url(url)[0])
        )
        # Its own call copies an event three times before gRPC does.
        self._model_infer = self._client._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=bytes,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def _infer(
        self, model: Model, array: NDArray[Any], timeout: float, request_id: str, wanted: Wanted
    ) -> Mapping[str, NDArray[Any]]:
        metadata = {**self._headers, **trace_headers()}
        if request_id:
            metadata["x-request-id"] = request_id
        try:
            answer = self._model_infer(
                request_bytes(model, array, request_id, wanted),
                timeout=timeout,
                metadata=tuple(metadata.items()),
            )
        except grpc.RpcError as error:
            raise InferenceServerException(error.details(), str(error.code())) from None
        return outputs_of(tritonclient.grpc.InferResult(answer), model, wanted)

    def _config(self, model: str) -> Mapping[str, Any]:
        answer = self._client.get_model_config(
            model, as_json=True, client_timeout=self.timeout, headers=self._headers
        )
        found: Mapping[str, Any] = answer["config"]
        return found

    def _models(self) -> list[Mapping[str, str]]:
        answer = self._client.get_model_repository_index(
            as_json=True, client_timeout=self.timeout, headers=self._headers
        )
        models: list[Mapping[str, str]] = answer.get("models", [])
        return models


class HttpConnection(Connection):
    """HTTP, with tensors in binary."""

    _client: Http

    def __init__(self, url: str, address: str, timeout: float, credentials: Credentials) -> None:
        super().__init__(url, timeout)
        context = credentials.context() if split_url(url)[0] in SECURE else None
        self._client = Http(address, timeout, context=context, headers=credentials.headers())

    def _infer(
        self, model: Model, array: NDArray[Any], timeout: float, request_id: str, wanted: Wanted
    ) -> Mapping[str, NDArray[Any]]:
        return self._client.infer(
            model, array, timeout=timeout, request_id=request_id, wanted=wanted
        )

    def _config(self, model: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.get(f"/v2/models/{model}/config")
        return found

    def _models(self) -> list[Mapping[str, str]]:
        models: list[Mapping[str, str]] = self._client.post("/v2/repository/index")
        return models


def model_input(model: Model, array: NDArray[Any]) -> Any:
    """Return a model's one input, ready to be sent by gRPC."""
    (tensor,) = model.inputs
    sent = tritonclient.grpc.InferInput(tensor.name, list(array.shape), tensor.dtype)
    sent.set_data_from_numpy(array)
    return sent


def request_bytes(model: Model, array: NDArray[Any], request_id: str, wanted: Wanted) -> bytes:
    """Return a ``ModelInferRequest`` for a model's one input as gRPC sends it, copied once."""
    (tensor,) = model.inputs
    request = service_pb2.ModelInferRequest(model_name=model.name, id=request_id)
    request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=array.shape)
    for name, value in wanted.request().items():
        if isinstance(value, bool):
            request.parameters[name].bool_param = value
        elif isinstance(value, str):
            request.parameters[name].string_param = value
        else:
            request.parameters[name].double_param = value
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    length, size = bytearray(), len(raw)
    while size > 0x7F:  # a varint: seven bits a byte, the lowest first
        length.append(0x80 | size & 0x7F)
        size >>= 7
    length.append(size)
    return b"".join((request.SerializeToString(), RAW_INPUT_CONTENTS, length, raw))


def outputs_of(answer: Any, model: Model, wanted: Wanted) -> dict[str, NDArray[Any]]:
    """Return by name those of the wanted outputs that a gRPC answer has."""
    names = [tensor.name for tensor in wanted.outputs(model)]
    names += [model.warning.name] if model.warning else []
    try:
        outputs = {name: answer.as_numpy(name) for name in names}
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        message = f"its answer is not one of a Triton server: {error}"
        raise InferenceServerException(message) from None
    return {name: output for name, output in outputs.items() if output is not None}


def wanted_outputs(
    outputs: Mapping[str, NDArray[Any]], model: Model, wanted: Wanted, url: str
) -> list[NDArray[Any]]:
    """Return the wanted outputs in their order; raises :class:`ServerError` if one is missing.

    Warns with :class:`InputWarning` of what the server warns of.
    """
    if model.warning is not None and model.warning.name in outputs:
        text = b"".join(map(bytes, outputs[model.warning.name].ravel()))[:1000]
        warnings.warn(f"{url}: {text.decode(errors='replace')}", InputWarning, stacklevel=2)
    names = [tensor.name for tensor in wanted.outputs(model)]
    for name in names:
        if name not in outputs:
            message = f"the model {model.name!r} at {url} returned no {name}"
            raise ServerError(message)
    return [outputs[name] for name in names]


def identified(request_id: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what names a request: for the server in its body, for a proxy in a header."""
    if not request_id:
        return {"headers": dict(headers)}
    return {"request_id": request_id, "headers": {**headers, "x-request-id": request_id}}


def strings(parameters: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the values of a model's parameters."""
    return {name: value.get("string_value", "") for name, value in parameters.items()}
