"""What a bundle states about itself where it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.contract.compact import VERSION
from trackserve.contract.description import Description
from trackserve.track_table import TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.bundle import Bundle


def describe(
    bundle: Bundle, *, max_hits: int, max_queue: int, bundles: Sequence[str] = ()
) -> Description:
    """Return what the models that serve a bundle, with these limits, state about themselves.

    ``bundles`` are the names of all on the server, this one alone if there are none.
    """
    return Description(
        columns=bundle.features.wire_columns,
        absent=dict(bundle.features.absent),
        features=bundle.features.columns,
        scales=bundle.features.scales,
        max_hits=max_hits,
        max_queue=max_queue,
        bundle=bundle.name,
        detector=bundle.detector,
        digest=bundle.digest(),
        track_columns=() if bundle.fit is None else TRACK_COLUMNS,
        min_quality=None if bundle.quality is None else bundle.min_quality,
        compact=VERSION,
        bundles=tuple(bundles) or (bundle.name,),
    )
