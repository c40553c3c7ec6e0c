"""What the guard lets in: limits on requests, and who may send them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackserve.contract.tensors import MODELS, SERVED
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.serving.settings import Settings

HEAD_BYTES = 65_536
"""Of a request beside its numbers."""
LEAST_BYTES = 2**20
STAGE_BYTES = 64 * 2**20
"""Of a request to a stage of an ensemble, which takes edges."""


@dataclass(frozen=True)
class GuardSettings:
    """Limits and credentials, checked when made.

    A request larger than ``max_request_bytes`` is refused; by default that is what an event of the
    server's ``max_hits`` needs. A compressed body may become ``max_ratio`` times as large as it came.
    An event that was in work when a process of the server died is set aside for ``aside_seconds``.
    With ``certificate`` and ``key`` (PEM files) clients must speak TLS, with ``client_ca`` they must
    have a certificate of that authority. ``tokens`` is a file of hashed tokens, see
    :mod:`trackserve.serving.guard.tokens`.
    """

    max_request_bytes: int | None = None
    max_ratio: int = 100
    aside_seconds: float = 600.0
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            message = "a certificate and its key go together; one of them is missing"
            raise InputError(message)
        if self.client_ca is not None and self.certificate is None:
            message = (
                "clients' certificates need TLS: give the server's certificate and key as well"
            )
            raise InputError(message)
        for name, least in (("max_request_bytes", HEAD_BYTES), ("max_ratio", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                message = f"{name} is {value}; expected at least {least}"
                raise InputError(message)
        if not 0 <= self.aside_seconds <= 86_400:
            message = f"aside_seconds is {self.aside_seconds}; expected seconds, at most a day"
            raise InputError(message)

    @property
    def tls(self) -> bool:
        """Whether clients must speak TLS."""
        return self.certificate is not None

    @property
    def open_to_all(self) -> bool:
        """Whether whoever reaches the port may send requests."""
        return self.tokens is None and self.client_ca is None


def limits(
    bundles: Sequence[Bundle], settings: Settings, guard: GuardSettings
) -> dict[str, object]:
    """Return what the guard's Lua files go by: the models of each bundle, and the largest of everything."""
    served = settings.shape == "monolith"
    models = {
        name: model
        for number, bundle in enumerate(bundles)
        for name, model in _models(bundle, bundle.name if number else "", served=served).items()
    }
    row = 4 * max(
        max(len(each.features.wire_columns), len(each.features.columns)) for each in bundles
    )
    needed = settings.max_hits * row + HEAD_BYTES
    most = guard.max_request_bytes or max(needed, LEAST_BYTES if served else STAGE_BYTES)
    return {
        "models": models,
        "most_bytes": most,
        "most_hits": min(settings.max_hits, most // row),
        "most_ratio": guard.max_ratio,
        "aside_seconds": guard.aside_seconds,
        "shared_memory": settings.shared_memory,
    }


def _models(bundle: Bundle, suffix: str, *, served: bool) -> dict[str, object]:
    """Return the models of a bundle by name, those alone that are meant to be called if ``served``."""
    sizes = {
        "C": len(bundle.features.wire_columns),
        "F": len(bundle.features.columns),
        "D": bundle.embedding_dimension,
    }
    return {
        model.of(suffix).name: {
            "inputs": {
                tensor.name: {"datatype": tensor.dtype, "dims": list(tensor.shape(sizes))}
                for tensor in (*model.inputs, *(model.compact or ())[:1])
            },
            "expected": len(model.inputs),
            "outputs": {tensor.name: True for tensor in model.all_outputs},
        }
        for model in (SERVED if served else MODELS.values())
    }
