"""The detector of the TrackML challenge, ACTS' Generic detector, and the field it stands in.

Symbols: S sensitive modules. A module has its own axes: u along the precise direction, v along the
other, w normal to it. Lengths in mm, field in T.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import acts
import acts.examples
import numpy as np

from trackserve.data.field import FIELD_AT_CENTRE, solenoid_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trackserve.event import Float64, Int32, Int64

Field = Literal["solenoid", "constant"]

QUIET = acts.logging.FATAL
"""ACTS reports every particle that it gives up; only what stops the simulation is of interest."""

PITCH = {
    **dict.fromkeys((7, 8, 9), (0.050, 0.05625)),
    **dict.fromkeys((12, 13, 14), (0.080, 1.2)),
    **dict.fromkeys((16, 17, 18), (0.120, 10.8)),
}
"""Size of a pixel, short strip and long strip of TrackML along u and v, by volume id."""

_MAP_RADIUS, _MAP_HALF_LENGTH, _MAP_STEP = 1200.0, 5000.0, 25.0
"""Extent and step of the map of the field in r and z, mm."""


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The sensitive modules, sorted by ``geometry_id``, one row each ``[S]``.

    A module is a rectangle or a trapezoid: ``half_width`` ``[S, 2]`` along u at its lower and upper
    edge in v, ``half_length`` along v. ``rotation`` ``[S, 3, 3]`` has u, v and w as its columns.
    ``channels`` ``[S, 2]`` counts the cells along u and v, ``pitch`` ``[S, 2]`` is their size.
    """

    geometry_id: Int64
    volume_id: Int32
    layer_id: Int32
    module_id: Int32
    centre: Float64
    rotation: Float64
    half_width: Float64
    half_length: Float64
    thickness: Float64
    channels: Int64
    pitch: Float64

    def __len__(self) -> int:
        return len(self.geometry_id)

    def rows(self, geometry_id: Int64) -> Int64:
        """Return the row of each of these geometry ids."""
        rows: Int64 = np.searchsorted(self.geometry_id, geometry_id)
        return rows

    def to_global(self, rows: Int64, local: Float64) -> Float64:
        """Return points given as u, v ``[N, 2]`` on modules ``[N]`` as x, y, z ``[N, 3]``."""
        position: Float64 = self.centre[rows] + np.einsum(
            "nij,nj->ni", self.rotation[rows, :, :2], local
        )
        return position

    def to_local(self, rows: Int64, position: Float64) -> Float64:
        """Return points x, y, z ``[N, 3]`` in the axes u, v, w of modules ``[N]``."""
        local: Float64 = np.einsum("nij,ni->nj", self.rotation[rows], position - self.centre[rows])
        return local

    @property
    def half_size(self) -> Float64:
        """Half of what the cells of each module cover along u and v, ``[S, 2]``."""
        return np.column_stack([self.half_width.max(axis=1), self.half_length])

    def channels_at(self, rows: Int64, local: Float64) -> Int64:
        """Return the cells ``[N, 2]`` at points u, v ``[N, 2]`` on modules ``[N]``."""
        channel = np.floor((local + self.half_size[rows]) / self.pitch[rows]).astype(np.int64)
        inside: Int64 = np.clip(channel, 0, self.channels[rows] - 1)
        return inside

    def at_channels(self, rows: Int64, channels: NDArray[np.integer[Any]]) -> Float64:
        """Return u, v ``[N, 2]`` of the centres of cells ``[N, 2]`` on modules ``[N]``."""
        position: Float64 = (channels + 0.5) * self.pitch[rows] - self.half_size[rows]
        return position


def build_detector() -> Any:
    """Build the Generic detector, an ``acts.examples.GenericDetector``; silently."""
    return acts.examples.GenericDetector(
        acts.examples.GenericDetector.Config(
            logLevel=QUIET, surfaceLogLevel=QUIET, layerLogLevel=QUIET, volumeLogLevel=QUIET
        )
    )


def build_field(field: Field = "solenoid", scale: float = 1.0) -> Any:
    """Build a field of 2 T times ``scale`` at the centre, along +z.

    ``solenoid`` is the field of ``trackserve.data.field``, as a map in r and z; ``constant`` is the
    same everywhere.
    """
    if field == "constant":
        return acts.ConstantBField(
            acts.Vector3(0, 0, scale * FIELD_AT_CENTRE * acts.UnitConstants.T)
        )
    radius = np.arange(0, _MAP_RADIUS + _MAP_STEP, _MAP_STEP)
    along = np.arange(-_MAP_HALF_LENGTH, _MAP_HALF_LENGTH + _MAP_STEP, _MAP_STEP)
    # ACTS expects r to run fastest; it does not look at the coordinates to find out.
    z, r = (axis.ravel() for axis in np.meshgrid(along, radius, indexing="ij"))
    br, bz = solenoid_field(r, z)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as table:
        np.savetxt(table, np.column_stack([r, z, scale * br, scale * bz]))
        table.flush()
        return acts.MagneticFieldMapRz(table.name, 1.0, acts.UnitConstants.T, False)


def read_surfaces(detector: Any) -> Surfaces:
    """Read position, shape and segmentation of every sensitive module of the detector."""
    context = acts.GeometryContext.dangerouslyDefaultConstruct()
    surfaces = sorted(
        (identifier.value, identifier, surface)
        for identifier, surface in detector.trackingGeometry().geoIdSurfaceMap().items()
        if identifier.sensitive
    )
    centre, rotation, half_width, half_length = [], [], [], []
    for _, _, surface in surfaces:
        transform = surface.localToGlobalTransform(context)
        translation, axes = transform.translation, transform.rotation
        centre.append([translation[i] for i in range(3)])
        rotation.append([[axes[i, j] for j in range(3)] for i in range(3)])
        bounds = surface.bounds.values()
        if surface.bounds.type == acts.SurfaceBoundsType.Trapezoid:
            lower, upper, length = bounds[:3]
        else:
            lower, upper, length = bounds[2], bounds[2], bounds[3]
        half_width.append([lower, upper])
        half_length.append(length)
    volume_id = np.array([identifier.volume for _, identifier, _ in surfaces], dtype=np.int32)
    half_widths, half_lengths = np.array(half_width), np.array(half_length)
    size = 2 * np.column_stack([half_widths.max(axis=1), half_lengths])
    nominal_pitch = np.array([PITCH[volume] for volume in volume_id.tolist()])
    channels = np.rint(size / nominal_pitch).astype(np.int64)
    return Surfaces(
        geometry_id=np.array([value for value, _, _ in surfaces], dtype=np.int64),
        volume_id=volume_id,
        layer_id=np.array([identifier.layer for _, identifier, _ in surfaces], dtype=np.int32),
        module_id=np.array([identifier.sensitive for _, identifier, _ in surfaces], dtype=np.int32),
        centre=np.array(centre),
        rotation=np.array(rotation),
        half_width=half_widths,
        half_length=half_lengths,
        thickness=np.array([surface.thickness for _, _, surface in surfaces]),
        channels=channels,
        pitch=size / channels,
    )
