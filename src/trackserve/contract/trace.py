"""W3C trace context: which trace a request belongs to, as the header ``traceparent`` carries it.

Format: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACEPARENT = "traceparent"
"""The header, and the name of the request's parameter in which Triton hands it to a model."""
TRACES_PATH = "/v1/traces"
"""Where a collector takes spans by OTLP over HTTP."""
_FORMAT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


@dataclass(frozen=True)
class Traced:
    """A request whose trace is recorded: the trace, the span that sent it, and the span that it is here."""

    trace_id: int
    parent_id: int
    span_id: int

    @classmethod
    def of_request(cls, parameters: Mapping[str, Any]) -> Self | None:
        """Return the place of a request in its trace, None if it is in none that is recorded.

        A header that is none is ignored, as W3C has it: a trace is no reason to refuse an event.
        """
        found = _FORMAT.fullmatch(str(parameters.get(TRACEPARENT, "")))
        if found is None or not int(found[3], 16) & _SAMPLED:
            return None
        trace_id, parent_id = int(found[1], 16), int(found[2], 16)
        return cls(trace_id, parent_id, new_span_id()) if trace_id and parent_id else None

    def header(self) -> str:
        """Return the header for what is asked on behalf of this request."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


def new_span_id() -> int:
    """Return a number that no other span of a trace has."""
    return random.getrandbits(64) or 1


def check_collector(url: str) -> str:
    """Return a collector's URL without a last slash; raises :class:`InputError` for others."""
    if not re.fullmatch(r"http://(?:[\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}/?", url):
        message = (
            f"the collector is {url!r}; expected http://host:port, such as http://localhost:4318: "
            "one that sends on with TLS and credentials runs beside it"
        )
        raise InputError(message)
    return url.rstrip("/")
