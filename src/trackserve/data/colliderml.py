"""Events of ColliderML: Parquet files with a row for each event and a list in each column.

``..._tracker_hits/train-00000-of-01000.parquet`` has the hits, and the file of the same name in
``..._particles`` who made them; in older releases the names are those of the files
(``hard_scatter.ttbar.v1.reco.tracker_hits.events0-999.parquet``). Lengths in mm, momenta in GeV. The columns are those
of https://huggingface.co/datasets/CERN/ColliderML-Release-1 and ``postprocess`` of ColliderML's
production. Needs pyarrow (``trackserve[sim]``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.data.sources import EventSource, File
from trackserve.data.tables import PARQUET, check_unique, import_arrow
from trackserve.data.weights import hit_weights
from trackserve.errors import InputError
from trackserve.event import NOISE, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

HITS, PARTICLES = "tracker_hits", "particles"
_POSITION = dict.fromkeys(("x", "y", "z"), np.float32)
_MODULE = {"volume_id": np.int32, "layer_id": np.int32, "surface_id": np.int32}
_NUMBERS = dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz", "charge"), np.float64)


@dataclass(frozen=True)
class ColliderMLEvent(EventSource):
    """An event of ColliderML that has not been read yet; ``row`` is its row in the hits' file."""

    row: int = 0

    marks = frozenset({HITS})

    def read(self, *, truth: bool = True, cells: bool = False) -> Event:
        """Read the event: the hits are numbered from 0, as the tracks of ColliderML number them.

        A particle's id is one more than there, for 0 is noise here, and so is a hit of a particle that
        isn't listed. Raises InputError with file, event and column.
        """
        if cells:
            message = f"{self} has no table of cells, from which this bundle makes features"
            raise InputError(message)
        file = self.file(HITS)
        made_by = {"particle_id": np.uint64} if truth else {}
        table = _row(file, self.row, {**_POSITION, **made_by}, _MODULE)
        modules = None
        if all(name in table for name in _MODULE):
            modules = Modules(*(table[name] for name in _MODULE))
        x, y, z = (table[name] for name in _POSITION)
        hits = Hits(np.arange(len(x), dtype=np.int64), x, y, z, modules)
        if not truth:
            return Event(self.event_id, hits, None)
        return Event(self.event_id, hits, self._read_truth(hits, table["particle_id"]))

    def _read_truth(self, hits: Hits, made_by: NDArray[np.uint64]) -> Truth:
        file = self.file(PARTICLES)
        rows = np.flatnonzero(_event_ids(file.path) == self.event_id)
        if len(rows) != 1:
            message = f"{file} has event {self.event_id} {len(rows)} times; expected it once"
            raise InputError(message)
        columns = {"particle_id": np.uint64, **_NUMBERS}
        table = _row(file, int(rows[0]), columns, {"primary": np.bool_})
        identity = _shifted(table.pop("particle_id"))
        check_unique(identity, owner=f"{file}, event {self.event_id}", name="particle_id")
        primary = table.pop("primary", np.ones(len(identity), np.bool_))
        particles = Particles(identity, q=table.pop("charge"), **table, primary=primary)
        owner = _shifted(made_by)
        particle_id = np.where(np.isin(owner, identity), owner, NOISE)
        weight = hit_weights(particle_id, hits.z.astype(np.float64), particles)
        return Truth(particle_id, weight, particles)


def find_events(path: Path) -> list[ColliderMLEvent]:
    """Find the events in one of the files of hits, or in a folder of them or of such folders.

    Returns none where the path has no such file. Events come in the order of files and rows.
    """
    if path.is_file():
        files = [path] if path.suffix == PARQUET and _is_of_hits(path) else []
    elif path.is_dir():
        files = sorted(
            {p for form in ("", "*/") for p in path.glob(f"{form}*{PARQUET}") if _is_of_hits(p)}
        )
    else:
        files = []
    return [event for file in files for event in _events_in(file)]


def _is_of_hits(path: Path) -> bool:
    return HITS in path.name or HITS in path.absolute().parent.name


def _events_in(path: Path) -> Iterator[ColliderMLEvent]:
    tables = {HITS: File(path)}
    partner = _partner(path)
    if partner is not None:
        tables[PARTICLES] = File(partner)
    for row, event_id in enumerate(_event_ids(path).tolist()):
        yield ColliderMLEvent(event_id, f"{path} event {event_id}", tables, row)


def _partner(path: Path) -> Path | None:
    """Return the file of the particles, if it lies where a release has it."""
    folder = path.absolute().parent
    name = path.name.replace(f"reco.{HITS}", f"truth.{PARTICLES}").replace(HITS, PARTICLES)
    beside = folder.with_name(folder.name.replace(HITS, PARTICLES))
    places = (folder / name, beside / name)
    return next((p for p in places if p.is_file() and p != path.absolute()), None)


@lru_cache(maxsize=4)
def _opened(path: Path, changed: int, size: int) -> Any:  # noqa: ARG001 - so that a new file is read
    arrow, parquet = import_arrow("pyarrow", "pyarrow.parquet")
    try:
        return parquet.ParquetFile(path, pre_buffer=False)
    except (arrow.ArrowException, OSError, ValueError) as error:
        message = f"{path} is not a Parquet file or is damaged: {str(error).partition(chr(10))[0]}"
        raise InputError(message) from error


def _file(path: Path) -> Any:
    state = path.stat()
    return _opened(path, state.st_mtime_ns, state.st_size)


def _event_ids(path: Path) -> NDArray[np.int64]:
    content = _file(path)
    if "event_id" not in content.schema_arrow.names:
        names = ", ".join(content.schema_arrow.names)[:300]
        message = f"{path} has no column event_id, so it isn't ColliderML's; it has {names}"
        raise InputError(message)
    ids: NDArray[np.int64] = (
        content.read(columns=["event_id"], use_threads=False)["event_id"]
        .to_numpy()
        .astype(np.int64)
    )
    return ids


def _row(
    file: File, row: int, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    """Return the lists of one event as arrays of one length; raises InputError for others."""
    content = _file(file.path)
    names = content.schema_arrow.names
    if missing := [name for name in required if name not in names]:
        message = f"{file} has no column {missing[0]}; it has {', '.join(names)[:300]}"
        raise InputError(message)
    wanted = {**required, **{name: kind for name, kind in optional.items() if name in names}}
    for group in range(content.num_row_groups):
        rows = content.metadata.row_group(group).num_rows
        if row < rows:
            table = content.read_row_group(group, columns=list(wanted), use_threads=False)
            break
        row -= rows
    arrays = {
        name: _list(file, name, table[name].slice(row, 1), kind) for name, kind in wanted.items()
    }
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        message = f"{file} row {row + 1} has lists of different lengths: {lengths}"
        raise InputError(message)
    return arrays


def _list(file: File, name: str, column: Any, kind: type) -> NDArray[Any]:
    values = column.combine_chunks().flatten() if hasattr(column.type, "value_type") else None
    if values is None or hasattr(values.type, "value_type") or values.null_count:
        message = f"{file}: {name} is {column.type}; expected a list of numbers for each event"
        raise InputError(message)
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in ("b" if kind is np.bool_ else "fiu") or not np.isfinite(array).all():
        message = f"{file}: {name} holds other than finite numbers ({column.type})"
        raise InputError(message)
    return np.ascontiguousarray(array, kind)


def _shifted(particle_id: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return ids from 1 on, 0 for those too large to be one (no particle)."""
    small = particle_id < np.uint64(2**62)
    return np.where(small, particle_id + np.uint64(1), np.uint64(0)).astype(np.int64)
