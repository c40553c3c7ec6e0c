"""What the sync and the async client share: servers, patience, fallback, what is known of the model."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.client.credentials import Credentials
from trackserve.client.tries import Patience, Servers
from trackserve.contract.compact import LONGEST_STEP, VERSION, decode_labels, encode_hits
from trackserve.contract.description import Description
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.errors import InputError, ServerError
from trackserve.event import Tracks
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trackserve.client.fallback import Fallback
    from trackserve.contract.tensors import Model
    from trackserve.event import Float32

DEFAULT_URL = "localhost:8001"
DEFAULT_TIMEOUT = 60.0
DEFAULT_TRIES = 20
"""Long enough, with the rests between them, for a server to be restarted."""


class ClientCore:
    """The part of a client that waits for nobody."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        timeout: float,
        tries: int,
        try_timeout: float | None,
        fallback: Fallback | None,
        wait: bool,
        credentials: Credentials | None,
        compact: float | None,
        bundle: str | None,
    ) -> None:
        self.urls = tuple(url.split(",") if isinstance(url, str) else url)
        if not self.urls:
            message = "no server was given; expected at least one host:port"
            raise InputError(message)
        if compact is not None and not 0 < compact <= LONGEST_STEP:
            message = (
                f"compact is {compact}; expected what to round positions to, above 0 and at most "
                f"{LONGEST_STEP:g} mm, or None"
            )
            raise InputError(message)
        self._compact = compact
        self.bundle = bundle
        """The name of the bundle that is to answer, None for a server's first one."""
        self._patience = Patience(timeout, tries, try_timeout, wait=wait)
        self._servers = Servers(len(self.urls))
        self._fallback = fallback
        self._credentials = credentials or Credentials.from_environment()
        self._described: Description | None = None

    def _all_rest(self) -> bool:
        """Whether to go to the fallback without asking."""
        return self._fallback is not None and self._servers.rest() > 0

    def _forms(self, model: Model, array: Float32) -> list[tuple[Model, NDArray[Any]]]:
        """Return in which forms to send an array, the plain one last.

        A server that is older than the one that was asked what it takes refuses the compact one.
        """
        plain = model, array
        described = self._described
        if self._compact is None or model.compact is None or described is None:
            return [plain]
        data = encode_hits(array, self._compact) if described.compact == VERSION else None
        return [plain] if data is None else [(model.in_compact_form, data), plain]

    def _model(self, model: Model) -> Model:
        """Return the model of the bundle that is to answer; the server must have been described."""
        return model.of("" if self._described is None else self._described.suffix(self.bundle))

    def _read(self, parameters: dict[str, str]) -> Description:
        """Read what a server that answered states about one of its models."""
        where = ", ".join(self.urls)
        try:
            return Description.from_parameters(parameters)
        except (KeyError, ValueError):
            message = (
                f"the model {TRACK_FINDING.name!r} at {where} is not one of trackserve: it "
                "does not describe its columns"
            )
            raise ServerError(message) from None

    def _describe(self, description: Description) -> Description:
        """Keep what is stated about the bundle that is to answer."""
        if self._fallback is not None:
            self._fallback.check_same(description, ", ".join(self.urls))
        self._described = description
        return description


def new_request_id() -> str:
    """Return a name for a request that no other one has."""
    return secrets.token_hex(8)


def as_tracks(
    labels: NDArray[Any], array: Float32, url: str, table: NDArray[Any] | None = None
) -> Tracks:
    """Return the labels, plain or compact, and the table of the tracks' parameters, as tracks.

    Raises :class:`ServerError` unless there is a label for each hit, and a row for each track.
    """
    if labels.dtype == np.uint8 and labels.ndim == 1:
        try:
            labels = decode_labels(labels, len(array))
        except InputError as error:
            message = f"{url} answered with labels that are none: {error}"
            raise ServerError(message) from None
    if labels.shape != array.shape[:1] or labels.dtype != np.int64:
        message = (
            f"{url} answered {array.shape[0]} hits with labels {labels.dtype} "
            f"{list(labels.shape)}; expected one int64 label for each hit"
        )
        raise ServerError(message)
    if table is not None and table.dtype != np.float32:
        message = f"{url} answered with parameters of tracks as {table.dtype}; expected float32"
        raise ServerError(message)
    try:
        return Tracks(labels, None if table is None else TrackTable.from_matrix(table))
    except InputError as error:  # the server's fault, not that of who sent the hits
        message = f"{url} answered with labels that are none: {error}"
        if table is not None:
            message = f"{url} answered with tracks that are none: {error}"
        raise ServerError(message) from None
