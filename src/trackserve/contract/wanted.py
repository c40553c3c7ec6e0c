"""What a request asks for beyond the labels: the parameters of a KServe request that are ours."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.contract.tensors import Model, Tensor

TRACK_PARAMETERS = "track_parameters"
"""The request's parameter, true or false, that asks for the outputs which come on request.

Naming such an output isn't enough: KServe takes a request that names none as one that names all.
"""
MIN_QUALITY = "min_quality"
"""The request's parameter, a number in [0, 1), that takes the place of the bundle's."""
BUNDLE = "bundle"
"""The request's parameter, the name of the bundle that is to answer: a model with another one refuses."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of an event beside its labels.

    ``parameters`` asks for what is fitted of each track. Tracks of a quality below ``min_quality``, in
    [0, 1), are dropped: the bundle's own cut if None. ``bundle`` names the one that is to answer, None for
    whichever the model has. Raises :class:`InputError` for another number.
    """

    parameters: bool = False
    min_quality: float | None = None
    bundle: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, bool):
            message = f"{TRACK_PARAMETERS} is {self.parameters!r}; expected true or false"
            raise InputError(message)
        quality = self.min_quality
        if quality is None:
            return
        if (
            isinstance(quality, bool)
            or not isinstance(quality, int | float)
            or not 0 <= quality < 1
        ):
            message = f"{MIN_QUALITY} is {quality!r}; expected a number from 0 up, below 1"
            raise InputError(message)

    def request(self) -> dict[str, bool | float | str]:
        """Return the request's parameters; none where only the labels are wanted."""
        asked: dict[str, bool | float | str] = {TRACK_PARAMETERS: True} if self.parameters else {}
        if self.min_quality is not None:
            asked[MIN_QUALITY] = float(self.min_quality)
        if self.bundle is not None:
            asked[BUNDLE] = self.bundle
        return asked

    @classmethod
    def of_request(cls, parameters: Mapping[str, Any]) -> Wanted:
        """Read a request's parameters; raises :class:`InputError` for values that are none of ours.

        A number may come as text: not every client can send another.
        """
        quality: Any = parameters.get(MIN_QUALITY)
        if isinstance(quality, str):
            with contextlib.suppress(ValueError):
                quality = float(quality)
        return cls(parameters.get(TRACK_PARAMETERS, False), quality, parameters.get(BUNDLE))

    @property
    def of_events(self) -> dict[str, Any]:
        """What a finder of tracks takes as arguments for each event."""
        return {"parameters": self.parameters, "min_quality": self.min_quality}

    def outputs(self, model: Model) -> tuple[Tensor, ...]:
        """Return the outputs of a model that are wanted."""
        return (*model.outputs, *model.on_request) if self.parameters else model.outputs


LABELS_ONLY = Wanted()
"""What a request asks for that says nothing."""
