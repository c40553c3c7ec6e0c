"""How sure it is that a track is right: a logistic model of its fit, its length and its scores.

In shapes, T is the number of tracks.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.errors import BundleError
from trackserve.pipeline.circle import STRAIGHT
from trackserve.pipeline.fit import GEV_PER_T_MM

if TYPE_CHECKING:
    from trackserve.event import Float64
    from trackserve.pipeline.fit import Fits, FitSettings

FARTHEST_START = 400.0
"""Beyond this radius, mm, it no longer matters where a track begins."""
LOG_PT = 2.0
"""The logarithm of pT over 1 GeV counts from minus to plus this."""
LARGEST = 30.0
"""Largest logit either way."""


@dataclass(frozen=True)
class QualityModel:
    """The weight of each property of a track in the logit of its quality.

    In the order of the fields: 1; the mean score of its steps, 0 where there was no edge; ln(chi2 per
    degree of freedom + 0.1); ln hits; 1 / hits; ln(|d0| + 0.05 mm); ln(1 + d0^2 / its variance);
    ln(|z0| + 5 mm); the radius of the first hit, up to 400 mm, over 100 mm; ln(pT / GeV), within -2 and
    2; |eta|; the radius of the last hit over 1 m.
    """

    constant: float
    score: float
    chi2: float
    hits: float
    inverse_hits: float
    d0: float
    d0_significance: float
    z0: float
    first_radius: float
    pt: float
    eta: float
    last_radius: float

    def __post_init__(self) -> None:
        if not np.isfinite(astuple(self)).all():
            message = f"quality has weights {astuple(self)}; expected finite numbers"
            raise BundleError(message)

    def quality(self, properties: Float64) -> Float64:
        """Return the quality ``[T]``, in [0, 1], of tracks with these properties ``[T, 12]``."""
        logit = np.zeros(len(properties))
        for weight, column in zip(astuple(self), properties.T, strict=True):
            logit += weight * column
        result: Float64 = 1 / (1 + np.exp(-np.clip(logit, -LARGEST, LARGEST)))
        return result


def properties_of(
    fits: Fits, score: Float64, first_r: Float64, last_r: Float64, settings: FitSettings
) -> Float64:
    """Return the properties ``[T, 12]`` that the quality of tracks depends on.

    ``score`` is the mean score of the steps, ``first_r`` and ``last_r`` are the radii (mm) of the
    first and of the last hit, each ``[T]``.
    """
    curvature = np.maximum(np.abs(fits.curvature), STRAIGHT)
    pt = GEV_PER_T_MM * abs(settings.field[0]) / curvature
    return np.stack(
        [
            np.ones(len(score)),
            score,
            np.log(fits.reduced_chi2 + 0.1),
            np.log(fits.hits),
            1 / fits.hits,
            np.log(np.abs(fits.d0) + 0.05),
            np.log(1 + fits.d0 * fits.d0 / fits.variance[:, 2]),
            np.log(np.abs(fits.z0) + 5.0),
            np.minimum(first_r, FARTHEST_START) / 100,
            np.clip(np.log(pt), -LOG_PT, LOG_PT),
            np.abs(np.arcsinh(fits.cot)),
            last_r / 1000,
        ],
        axis=1,
    )
