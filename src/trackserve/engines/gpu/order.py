"""Canonical order, as canonical_order in pipeline/features.py, and what the networks see of a hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trackserve.pipeline.features import cylindrical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trackserve.event import Float32
    from trackserve.pipeline.features import FeatureColumns

METRE = 1000.0


@dataclass(frozen=True, eq=False)
class DeviceHits:
    """Hits in canonical order, events one after the other.

    ``row`` ``[N]`` is the row of the input, ``event`` int32 ``[N]`` the event's number, ``features``
    ``[N, F]``, ``position`` float32 ``[3, N]`` r, phi, z (mm, rad, mm).
    """

    row: Tensor
    event: Tensor
    features: Tensor
    position: Tensor


def upload(features: Float32, columns: FeatureColumns, device: str) -> tuple[Tensor, Tensor]:
    """Return features ``[N, F]`` and r, phi, z ``[3, N]`` on the device.

    Where r, phi and z are features themselves, they are worked out there; a product of two numbers
    rounds the same everywhere. Other features need atan2, which doesn't, so they take numpy's.
    """
    given = torch.from_numpy(np.ascontiguousarray(features)).to(device, non_blocking=True)
    names = list(columns.columns)
    if {"r", "phi", "z"} <= set(names):
        at = [names.index(name) for name in ("r", "phi", "z")]
        scales = [float(np.float32(columns.scales[i])) for i in at]
        return given, torch.stack([given[:, i] * s for i, s in zip(at, scales, strict=True)])
    return given, torch.from_numpy(np.stack(cylindrical(features, columns))).to(device)


def canonical_order(features: Tensor, position: Tensor, event: Tensor) -> DeviceHits:
    """Sort hits by their event, distance from the origin and features.

    ``event`` int32 ``[N]``. Sorting is stable, from the last key to the first; adding zero turns -0
    into 0, which a radix sort would separate.
    """
    r, _, z = position
    keys = [*features.unbind(1), r * r + z * z, event]
    order = torch.arange(len(features), device=features.device)
    for key in keys:
        order = order[torch.sort(key[order] + 0, stable=True).indices]
    return DeviceHits(order, event[order], features[order], position[:, order].contiguous())


@dataclass(frozen=True, eq=False)
class NetworkHits:
    """What the kernels read where a network needs a hit, as HitInputs of training/networks.py.

    ``seen`` ``[N, 4]`` is r (m), phi (rad), z (m) and eta, ``further`` ``[N, .]`` the further features.
    """

    seen: Tensor
    further: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        yield self.seen
        yield self.further


def network_hits(features: Tensor, columns: FeatureColumns) -> NetworkHits:
    """Return what networks see of hits with these features ``[N, F]``."""
    names = list(columns.columns)
    scale = dict(zip(names, columns.scales, strict=True))
    r = features[:, names.index("r")] * (scale["r"] / METRE)
    phi = features[:, names.index("phi")] * scale["phi"]
    z = features[:, names.index("z")] * (scale["z"] / METRE)
    slope = z / r.clamp(min=1e-3)
    eta = torch.sign(slope) * torch.log(slope.abs() + torch.sqrt(slope * slope + 1))
    further = [i for i, name in enumerate(names) if name not in {"r", "phi", "z"}]
    return NetworkHits(torch.stack([r, phi, z, eta], dim=1), features[:, further].contiguous())
