"""Events in the JSON format of Phoenix, the event display of the HEP Software Foundation.

Source: HSF/phoenix, guides/developers/event_data_format.md. Lengths in mm, momenta in MeV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.event import NO_TRACK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trackserve.event import Event, Tracks

MEV_PER_GEV = 1000.0


def phoenix_events(found: Iterable[tuple[Event, Tracks]]) -> dict[str, Any]:
    """Return what Phoenix loads: a key an event, its hits and its tracks.

    A fitted track carries ``dparams``: d0, z0 (mm), phi, theta (rad) and charge over momentum (1/MeV).
    """
    return {f"Event {event.event_id}": _event(event, tracks) for event, tracks in found}


def _event(event: Event, tracks: Tracks) -> dict[str, Any]:
    hits = event.hits
    positions = np.stack([hits.x, hits.y, hits.z], axis=1).astype(np.float64).round(3)
    rows = np.flatnonzero(tracks.labels != NO_TRACK)
    rows = rows[np.lexsort((np.linalg.norm(positions[rows], axis=1), tracks.labels[rows]))]
    first = np.searchsorted(tracks.labels[rows], np.arange(len(tracks) + 1))
    listed = []
    for track in range(len(tracks)):
        entry: dict[str, Any] = {"pos": positions[rows[first[track] : first[track + 1]]].tolist()}
        table = tracks.parameters
        if table is not None and np.isfinite(table.pt[track]):
            eta, pt = float(table.eta[track]), float(table.pt[track])
            momentum = MEV_PER_GEV * pt * np.cosh(eta)
            entry["chi2"] = float(table.chi2[track])
            entry["dparams"] = [
                float(table.d0[track]),
                float(table.z0[track]),
                float(table.phi[track]),
                float(2 * np.arctan(np.exp(-eta))),
                float(table.charge[track] / momentum),
            ]
        listed.append(entry)
    return {
        "event number": event.event_id,
        "run number": 0,
        "Hits": {"Hits": positions.tolist()},
        "Tracks": {"Tracks": listed},
    }
