"""What the compiled library knows of the fit: a bundle's settings as C structures."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int32, c_void_p, pointer
from dataclasses import astuple
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trackserve.pipeline.tracks import TrackStage


class Region(ctypes.Structure):
    """A part of the detector (``trackserve::Region``)."""

    _fields_ = (
        *(("r", c_double), ("z", c_double)),
        *(("barrel", c_double * 3), ("disc", c_double * 3)),
    )


class FitSettings(ctypes.Structure):
    """The detector as the fit sees it (``trackserve::FitSettings``)."""

    _fields_ = (
        *(("field_z", POINTER(c_double)), ("field", POINTER(c_double)), ("places", c_int32)),
        *(("regions", POINTER(Region)), ("many_regions", c_int32)),
    )


class Fitting(ctypes.Structure):
    """What building tracks with the help of the fit needs (``trackserve_fitting``)."""

    _fields_ = (
        *(("fit", POINTER(FitSettings)), ("quality", c_void_p)),
        *(("join", c_double), ("min_quality", c_double), ("extend", c_double)),
    )

    @classmethod
    def of(cls, stage: TrackStage) -> Fitting | None:
        """Return the settings of a bundle, None where it has no fit."""
        fit = stage.fit
        if fit is None:
            return None
        places = len(fit.field_z)
        numbers = c_double * places
        regions = (Region * len(fit.regions))(
            *(
                Region(each.r, each.z, (c_double * 3)(*each.barrel), (c_double * 3)(*each.disc))
                for each in fit.regions
            )
        )
        settings = FitSettings(
            numbers(*fit.field_z), numbers(*fit.field), places, regions, len(regions)
        )
        quality = None
        if stage.quality is not None:
            weights = astuple(stage.quality)
            quality = (c_double * len(weights))(*weights)
        made = cls(
            pointer(settings),
            None if quality is None else ctypes.addressof(quality),
            stage.builder.join,
            stage.builder.min_quality,
            stage.builder.extend,
        )
        made.kept = (settings, quality)  # for as long as the pointers
        return made
