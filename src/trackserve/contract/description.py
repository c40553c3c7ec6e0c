"""What a served model states about itself, in the parameters of its Triton configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PIPELINE = "pipeline"
"""The worker of a monolith's models, which run the whole pipeline themselves; its instances and
threads go by this name."""

PRECISIONS = ("float32", "bfloat16", "int8")
"""What the networks of a bundle may be computed in, by an engine and on a device that has it."""


@dataclass(frozen=True)
class Description:
    """What a served model states about itself in its parameters.

    ``columns`` are those of ``HITS``, ``absent`` the value to send for a column that the hits don't
    have; ``features`` and ``scales`` describe ``FEATURES``. ``digest`` names the bundle's contents.
    """

    columns: tuple[str, ...]
    absent: Mapping[str, float]
    features: tuple[str, ...]
    scales: tuple[float, ...]
    max_hits: int
    max_queue: int
    bundle: str
    detector: str
    digest: str

    def parameters(self) -> dict[str, str]:
        """Return the parameters of the model's configuration, each a JSON value."""
        return {name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Description:
        """Read the parameters back; raises :class:`KeyError` or :class:`ValueError` if not ours."""
        value = {name: json.loads(parameters[name]) for name in cls.__dataclass_fields__}
        lists = ("columns", "features", "scales")
        return cls(**value | {name: tuple(value[name]) for name in lists})
