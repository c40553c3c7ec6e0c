"""What a served model states about itself, in the parameters of its Triton configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackserve.contract.tensors import LABELS, TRACK_FINDING
from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.contract.tensors import Model
    from trackserve.contract.wanted import Wanted

PIPELINE = "pipeline"
"""The worker of a monolith's models, which run the whole pipeline themselves; its instances and
threads go by this name."""

PRECISIONS = ("float32", "bfloat16", "int8")
"""What the networks of a bundle may be computed in, by an engine and on a device that has it."""

NEWER = ("track_columns", "min_quality", "compact", "bundles")
"""What older servers don't state."""


@dataclass(frozen=True)
class Description:
    """What a served model states about itself in its parameters.

    ``columns`` are those of ``HITS``, ``absent`` the value to send for a column that the hits don't
    have; ``features`` and ``scales`` describe ``FEATURES``. ``digest`` names the bundle's contents. ``track_columns`` are those of
    ``PARAMETERS``, none where the bundle has no fit; tracks of a quality below ``min_quality`` are
    dropped unless a request has another cut, None where the bundle doesn't know their quality. ``compact``
    is the version of ``HITS_COMPACT`` that the model takes, 0 for none. ``bundles`` are all that the server
    has, the first one under the models' plain names, each further one as ``track_finding.NAME``.
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
    track_columns: tuple[str, ...] = ()
    min_quality: float | None = None
    compact: int = 0
    bundles: tuple[str, ...] = ()

    def suffix(self, bundle: str | None) -> str:
        """Return what follows the models' names for a bundle of this server, None for its first one.

        Raises :class:`InputError` for one that the server doesn't have.
        """
        has = self.bundles or (self.bundle,)
        if bundle is None or bundle == has[0]:
            return ""
        if bundle not in has:
            message = f"the server has no bundle {bundle!r}; it has {', '.join(has)}"
            raise InputError(message)
        return bundle

    def check(self, wanted: Wanted, model: Model) -> None:
        """Raise :class:`InputError` unless this model can give what is wanted."""
        if wanted.bundle not in {None, self.bundle}:
            message = f"this model has the bundle {self.bundle}, not {wanted.bundle!r}: the server's bundles have changed; connect again"
            raise InputError(message)
        if wanted.parameters and not model.on_request:
            message = (
                f"the model {model.name!r} returns {LABELS.name} alone; {TRACK_FINDING.name!r} "
                "returns the parameters of tracks, too"
            )
            raise InputError(message)
        if wanted.parameters and not self.track_columns:
            message = (
                f"the bundle {self.bundle} has no [fit], so it can't give the parameters of tracks"
            )
            raise InputError(message)
        if wanted.min_quality is not None and self.min_quality is None:
            message = f"the bundle {self.bundle} has no [quality], so tracks can't be chosen by it"
            raise InputError(message)

    def parameters(self) -> dict[str, str]:
        """Return the parameters of the model's configuration, each a JSON value."""
        return {name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Description:
        """Read the parameters back; raises :class:`KeyError` or :class:`ValueError` if not ours.

        An older server doesn't state what a request may ask for beside labels.
        """
        names = [n for n in cls.__dataclass_fields__ if n in parameters or n not in NEWER]
        value = {name: json.loads(parameters[name]) for name in names}
        lists = ("columns", "features", "scales", "track_columns", "bundles")
        return cls(**value | {name: tuple(value[name]) for name in lists if name in value})
