"""Whether scaled features, which a client may have made itself, can be those that a bundle's networks expect.

A client in other units gets an answer all the same: networks answer anything. So it gets a warning, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trackserve.event import Float32
    from trackserve.pipeline.features import FeatureColumns

LEAST, MOST = 0.01, 10.0
"""How far a feature reaches in any event that networks were trained on: to about 1."""
MANY_HITS = 100
"""An event of fewer hits may lie near an axis by chance."""
_LARGEST = {"phi": np.pi, "theta": np.pi, "cos_phi": 1.0, "sin_phi": 1.0}
"""The largest number of each column that has one: rad, and none."""
_LENGTHS = {"x", "y", "z", "r"}


def out_of_scale(features: Float32, columns: FeatureColumns, *, extent_known: bool) -> str | None:
    """Return in one sentence why features ``[N, F]`` are hardly a bundle's, None if they may be.

    Lengths are looked at only where the bundle doesn't state the extent of its detector
    (``extent_known``): its budget is stricter. An angle that was divided too often looks like one of a
    part of the detector, and isn't found.
    """
    if not len(features):
        return None
    reaches = np.abs(features).max(axis=0)
    for name, scale, reach in zip(columns.columns, columns.scales, reaches, strict=True):
        largest = _LARGEST.get(name, np.inf) / scale
        small = len(features) >= MANY_HITS and reach < LEAST
        if reach > 1.001 * largest:
            expected = f"at most {largest:.3g}"
        elif name in _LENGTHS and not extent_known and (small or reach > MOST):
            expected = "about 1"
        else:
            continue
        sent = ", ".join(
            f"{n} / {s:.6g}" for n, s in zip(columns.columns, columns.scales, strict=True)
        )
        return (
            f"the feature {name} reaches {reach:.3g}, expected {expected}, so the tracks may mean nothing: this "
            f"bundle's features are {sent} (mm, rad)"
        )
    return None
