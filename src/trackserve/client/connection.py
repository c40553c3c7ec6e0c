"""Talking to a Triton server over gRPC or HTTP, with its failures as this package's errors."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from trackserve.errors import InputError, RefusedError, ServerError, TrackserveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trackserve.triton.tensors import Model

_REFUSALS = ("Exceeds maximum queue size", "Request timeout expired")
"""How Triton begins to tell that it won't take a request, or has dropped it from its queue."""


def connect(url: str, timeout: float) -> Connection:
    """Return a connection to ``host:port``; the scheme, ``grpc://`` if none, says which protocol."""
    scheme, separator, address = url.rpartition("://")
    kinds = {"grpc": GrpcConnection, "http": HttpConnection}
    kind = kinds.get(scheme) if separator else GrpcConnection
    if kind is None or not re.fullmatch(r"[^/\s]+:\d{1,5}/?", address):
        message = (
            f"{url!r} is not a server; expected host:port, grpc://host:port or http://host:port"
        )
        raise InputError(message)
    return kind(url, address.rstrip("/"), timeout)


class Connection(ABC):
    """A connection by one of the two protocols; ``timeout`` (s) bounds each call."""

    _protocol: Any

    def __init__(self, url: str, address: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._client = self._open(address)

    @abstractmethod
    def _open(self, address: str) -> Any: ...

    @abstractmethod
    def _infer(self, model: str, inputs: list[Any]) -> Any: ...

    @abstractmethod
    def _parameters(self, model: str) -> Mapping[str, Mapping[str, str]]: ...

    @abstractmethod
    def _models(self) -> list[Mapping[str, str]]: ...

    def infer(self, model: Model, array: NDArray[Any]) -> NDArray[Any]:
        """Return the one output of a model for its one input."""
        (tensor,), (output,) = model.inputs, model.outputs
        with self._explained(model):
            sent = self._protocol.InferInput(tensor.name, list(array.shape), tensor.dtype)
            sent.set_data_from_numpy(array)
            result: NDArray[Any] | None = self._infer(model.name, [sent]).as_numpy(output.name)
        if result is None:
            message = f"the model {model.name!r} at {self.url} gave no {output.name}"
            raise ServerError(message)
        return result

    def parameters(self, model: Model) -> dict[str, str]:
        """Return the parameters of a model's configuration."""
        with self._explained(model):
            found = self._parameters(model.name)
        return {name: value.get("string_value", "") for name, value in found.items()}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _explained(self, model: Model) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._explain(model, error) from None
        except TimeoutError:
            raise self._no_answer() from None
        except (OSError, HTTPParseError) as error:
            raise self._unreachable(str(error)) from None

    def _explain(self, model: Model, error: InferenceServerException) -> TrackserveError:
        status = str(error.status()).removeprefix("StatusCode.")
        reason = _sentence(error.message() or status)
        if status in {"NOT_FOUND", "404"} or "unknown model" in reason:
            return self._without(model)
        if any(refusal in reason for refusal in _REFUSALS):
            return RefusedError(f"{self.url} refused the request: {reason}")
        match status:
            case "INVALID_ARGUMENT" | "400":
                return InputError(reason)
            case "UNAVAILABLE":
                return self._unreachable(reason)
            case "DEADLINE_EXCEEDED":
                return self._no_answer()
            case _:
                return ServerError(f"{self.url} failed: {reason}")

    def _no_answer(self) -> ServerError:
        return ServerError(f"no answer from {self.url} within {self.timeout:g} s")

    def _unreachable(self, reason: str) -> ServerError:
        return ServerError(f"{self.url} can't be reached: {reason}")

    def _without(self, model: Model) -> ServerError:
        try:
            names = sorted({each["name"] for each in self._models()})
        except (InferenceServerException, OSError):
            return ServerError(
                f"{self.url} doesn't have {model.name!r} and doesn't list its models: it is stopping, "
                "or is another kind of server; ask again when it is ready"
            )
        has = f"it has: {', '.join(names)}" if names else "it has none"
        return ServerError(f"{self.url} has no model {model.name!r}; {has}")


class GrpcConnection(Connection):
    """gRPC: one connection that may carry many requests."""

    _protocol = tritonclient.grpc

    def _open(self, address: str) -> Any:
        return tritonclient.grpc.InferenceServerClient(address)

    def _infer(self, model: str, inputs: list[Any]) -> Any:
        return self._client.infer(model, inputs, client_timeout=self.timeout)

    def _parameters(self, model: str) -> Mapping[str, Mapping[str, str]]:
        answer = self._client.get_model_config(model, as_json=True, client_timeout=self.timeout)
        found: Mapping[str, Mapping[str, str]] = answer["config"].get("parameters", {})
        return found

    def _models(self) -> list[Mapping[str, str]]:
        answer = self._client.get_model_repository_index(as_json=True, client_timeout=self.timeout)
        models: list[Mapping[str, str]] = answer.get("models", [])
        return models


class HttpConnection(Connection):
    """HTTP, with tensors in binary."""

    _protocol = tritonclient.http

    def _open(self, address: str) -> Any:
        return tritonclient.http.InferenceServerClient(
            address, connection_timeout=self.timeout, network_timeout=self.timeout
        )

    def _infer(self, model: str, inputs: list[Any]) -> Any:
        return self._client.infer(model, inputs)

    def _parameters(self, model: str) -> Mapping[str, Mapping[str, str]]:
        found: Mapping[str, Mapping[str, str]] = self._client.get_model_config(model)["parameters"]
        return found

    def _models(self) -> list[Mapping[str, str]]:
        models: list[Mapping[str, str]] = self._client.get_model_repository_index()
        return models


def _sentence(message: str) -> str:
    """Return the server's message without the decoration that Triton puts around it."""
    bare = re.sub(r"^(\[request id: [^\]]*\] |in ensemble '\w+', )+", "", message.strip())
    return bare.splitlines()[0].strip()
