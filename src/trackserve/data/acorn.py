"""Events in the CSV files that acorn (GNN4ITk) makes of a simulation before it builds graphs.

For each event the stage `data_reading` writes ``event000000001-truth.csv``, a row for each hit, and
``event000000001-particles.csv``; newer versions put ``hit_`` before the columns of a hit. A hit that
several particles made has a row for each. Events dumped from Athena (their particles have a ``barcode``)
have momenta in MeV, events of TrackML in GeV. The graphs in .pyg files are pickles and are not read.

https://gitlab.cern.ch/gnn4itkteam/acorn, acorn/stages/data_reading
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.data.sources import EventSource
from trackserve.data.tables import check_unique, read_table
from trackserve.data.trackml import is_primary
from trackserve.data.weights import hit_weights
from trackserve.errors import InputError
from trackserve.event import NOISE, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trackserve.data.sources import File
    from trackserve.data.tables import Columns
    from trackserve.event import Int64

_PREFIX = "hit_"
_POSITION = ("x", "y", "z")
_MODULE = ("volume_id", "layer_id", "module_id")
_MOMENTUM, _VERTEX = ("px", "py", "pz"), ("vx", "vy", "vz")
_CHARGE = ("q", "charge")
_FROM_ATHENA = "barcode"
_GEV = {True: 1e-3, False: 1.0}


@dataclass(frozen=True)
class AcornEvent(EventSource):
    """An event in acorn's CSV files that has not been read yet."""

    marks = frozenset({"truth"})
    # An event of TrackML that is still being written has its cells, too, and no hits yet.
    foreign = frozenset({"cells", "hits"})

    def read(self, *, truth: bool = True, cells: bool = False) -> Event:
        """Read the event: each ``hit_id`` is a hit, and belongs to the particle of its first row.

        ``modules`` is None where the hits have no volume, layer and module. ``primary`` comes from the
        column of that name, else from the particle's id as in TrackML. Raises InputError with file, row
        and column.
        """
        if cells:
            message = f"{self} has no table of cells, from which this bundle makes features"
            raise InputError(message)
        file = self.file("truth")
        table = _read_hits(file)
        hit_id, first = np.unique(table["hit_id"], return_index=True)
        first.sort()
        hit_id = table["hit_id"][first]
        position = {name: table[name][first] for name in _POSITION}
        modules = None
        if all(name in table for name in _MODULE):
            modules = Modules(*(table[name][first] for name in _MODULE))
        hits = Hits(hit_id, **position, modules=modules)
        if not truth:
            return Event(self.event_id, hits, None)
        if "particle_id" not in table:
            message = f"{file} has no column particle_id or {_PREFIX}particle_id"
            raise InputError(message)
        return Event(self.event_id, hits, self._read_truth(hits, table["particle_id"][first]))

    def _read_truth(self, hits: Hits, made_by: Int64) -> Truth:
        file = self.file("particles")
        numbers = dict.fromkeys((*_MOMENTUM, *_VERTEX), np.float64)
        further = {
            **dict.fromkeys(_CHARGE, np.float64),
            "primary": np.int64,
            _FROM_ATHENA: np.int64,
        }
        table = read_table(file, {"particle_id": np.int64, **numbers}, further)
        identity = table["particle_id"]
        check_unique(identity, owner=file, name="particle_id")
        charge = next((table[name] for name in _CHARGE if name in table), None)
        if charge is None:
            message = f"{file} has no column {' or '.join(_CHARGE)}"
            raise InputError(message)
        gev = _GEV[_FROM_ATHENA in table]
        particles = Particles(
            identity,
            **{name: table[name] for name in _VERTEX},
            **{name: table[name] * gev for name in _MOMENTUM},
            q=charge,
            primary=table["primary"] != 0 if "primary" in table else is_primary(identity),
        )
        # Particles below the stage's thresholds aren't listed: their hits are no particle's here.
        particle_id = np.where(np.isin(made_by, identity), made_by, NOISE)
        weight = hit_weights(particle_id, hits.z.astype(np.float64), particles)
        return Truth(particle_id, weight, particles)


def _read_hits(file: File) -> Columns:
    """Read the hits' columns, with or without the prefix; names come back without."""
    wanted: Mapping[str, type] = {
        **dict.fromkeys(_POSITION, np.float32),
        **dict.fromkeys(_MODULE, np.int32),
        "particle_id": np.int64,
    }
    prefixed = {f"{_PREFIX}{name}": kind for name, kind in wanted.items()}
    table = read_table(file, {"hit_id": np.int64}, {**wanted, **prefixed})
    for name in wanted:
        if f"{_PREFIX}{name}" in table:
            table[name] = table.pop(f"{_PREFIX}{name}")
    if missing := [name for name in _POSITION if name not in table]:
        message = (
            f"{file} has no column {missing[0]} or {_PREFIX}{missing[0]}, so it isn't acorn's; an event of "
            "TrackML has its positions in a hits file beside"
        )
        raise InputError(message)
    return table
