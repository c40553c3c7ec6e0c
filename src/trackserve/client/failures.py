"""A server's failures as this package's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trackserve.errors import (
    OVER_BUDGET,
    BudgetError,
    InputError,
    NobodyListensError,
    NotTrustedError,
    RefusedError,
    ServerError,
    TrackserveError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tritonclient.utils import InferenceServerException

_REFUSALS = (
    *("the queue is full", "this server's limit is", "retry after"),
    *("Exceeds maximum queue size", "Request timeout expired", "overflow"),
)
"""How a server states that it won't take a request or has dropped it: ours, other Tritons, Envoy."""
_BROKEN = ("Stub process", "RST_STREAM", "Stream removed", "GOAWAY")
"""How Triton states that a model's process has died, and gRPC that a connection has."""
_GONE = {"UNAVAILABLE", "CANCELLED", "502", "503", "504"}


def is_without_model(error: InferenceServerException) -> bool:
    """Whether a server answers that it has no such model: it may also be stopping."""
    status, reason = _parts(error)
    return status in {"NOT_FOUND", "404"} or "unknown model" in reason


def explain(error: InferenceServerException, url: str, timeout: float) -> TrackserveError:
    """Return what an answer of a server, or of gRPC in its place, means."""
    status, reason = _parts(error)
    if any(refusal in reason for refusal in _REFUSALS):
        refused = RefusedError(f"{url} refused the request: {reason}")
        if hint := re.search(r"retry after ([\d.]+(?:e[+-]?\d+)?) s", reason):
            refused.retry_after = float(hint[1])
        return refused
    if status == "DEADLINE_EXCEEDED":
        return no_answer(url, timeout)
    if status in _GONE or any(broken in reason for broken in _BROKEN):
        return unreachable(url, reason)
    if status in {"INVALID_ARGUMENT", "400"}:
        return BudgetError(reason) if reason.startswith(OVER_BUDGET) else InputError(reason)
    return ServerError(f"{url} failed: {reason}")


def no_answer(url: str, timeout: float) -> UnreachableError:
    """Return the error for a server that took too long."""
    # Two digits: what is left of a longer limit is no round number.
    seconds = f"{timeout:.2g}" if timeout < 10 else f"{timeout:.0f}"
    return UnreachableError(f"no answer from {url} within {seconds} s")


def unreachable(url: str, reason: str) -> UnreachableError:
    """Return the error for a server that is not there, or not any more."""
    if "Connection refused" in reason:
        message = f"nothing listens at {url}; start a server with `trackserve serve`, or name another address"
        return NobodyListensError(message)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.partition("VERIFY_FAILED")[2].lstrip("]: ").removesuffix(": OK")
        message = (
            f"the certificate of {url} is not trusted: {why.removeprefix('certificate verify failed: ')}; "
            "TRACKSERVE_CA names the file of the authority to trust"
        )
        return NotTrustedError(message)
    return UnreachableError(f"{url} can't be reached: {reason}{_perhaps_tls(url, reason)}")


def _perhaps_tls(url: str, reason: str) -> str:
    """Return what to try where a server hung up on plain text."""
    if not reason.endswith(("Socket closed", "closed connection without response")):
        return ""
    if url.startswith(("grpcs:", "https:", "unix:")):
        return ""
    return f"; does it speak {'https' if url.startswith('http:') else 'grpcs'}:// alone?"


def without_model(url: str, model: str, has: Iterable[str]) -> ServerError:
    """Return the error for a server that has other models; one that lists the model is stopping."""
    if model in (listed := set(has)):
        return stopping(url, model)
    names = ", ".join(sorted(listed))
    return ServerError(f"{url} has no model {model!r}; it has{f': {names}' if names else ' none'}")


def stopping(url: str, model: str) -> UnreachableError:
    """Return the error for a server that has a model no more, or doesn't list those that it has."""
    return UnreachableError(
        f"{url} has no {model!r} ready and no other models to name: it is stopping, "
        "or is another kind of server; retry when it is ready"
    )


def _parts(error: InferenceServerException) -> tuple[str, str]:
    """Return the status, and the message without the decoration that Triton puts around it."""
    status = str(error.status()).removeprefix("StatusCode.")
    message = (error.message() or status).strip()
    bare = re.sub(r"^(\[request id: [^\]]*\] |in ensemble '[\w.-]+', )+", "", message)
    return status, bare.splitlines()[0].strip()
