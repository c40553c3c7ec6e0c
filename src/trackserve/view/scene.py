"""What the page draws of an event, in one compressed block.

A block is zlib-compressed: 4 bytes (little-endian) with the length of a JSON header, the header, and
the columns one after the other, each padded to 8 bytes. The header names each column with its numpy
type, where it begins behind the header, and its length.

N hits    T tracks    P particles
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.display import transverse_momentum
from trackserve.evaluate.matching import MIN_TRACK_HITS, match, particle_rows
from trackserve.event import NO_TRACK, Event, Hits, Tracks, Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

Columns = dict[str, "NDArray[Any]"]

NOT_MATCHED, MATCHED, TOO_SHORT = 0, 1, 2
"""What became of a track: no particle by double majority, one, or fewer than three hits."""
_ALIGNMENT = 8
_LAYER_SIDES = 0.25
"""A layer whose hits spread less along z than this part of their spread in r is drawn as a disk."""


def pack_scene(name: str, event: Event, tracks: Tracks) -> bytes:
    """Return the block of an event and the tracks found in it.

    Raises InputError where hits and labels differ in number.
    """
    hits, truth = event.hits, event.truth
    if len(hits) != len(tracks.labels):
        message = f"{len(tracks.labels)} labels for {len(hits)} hits; expected one for each hit"
        raise InputError(message)
    columns = {**_hit_columns(hits, tracks), **_track_columns(hits, tracks)}
    if truth is not None:
        columns.update(_truth_columns(hits, tracks, truth))
    return _pack(
        {"name": name, "fitted": tracks.parameters is not None, "layers": _layers(hits)}, columns
    )


def unpack_scene(block: bytes) -> tuple[dict[str, Any], Columns]:
    """Return the header and the columns of a block, as the page reads them."""
    content = zlib.decompress(block)
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    start = 4 + length
    return header, {
        column["name"]: np.frombuffer(
            content, column["type"], column["length"], start + column["offset"]
        )
        for column in header["columns"]
    }


def _pack(header: dict[str, Any], columns: Columns) -> bytes:
    offset, listed, parts = 0, [], []
    for name, values in columns.items():
        content = np.ascontiguousarray(values).tobytes()
        padding = -len(content) % _ALIGNMENT
        listed.append(
            {"name": name, "type": values.dtype.str, "offset": offset, "length": len(values)}
        )
        parts += [content, bytes(padding)]
        offset += len(content) + padding
    text = json.dumps({**header, "columns": listed}).encode()
    text += b" " * (-(4 + len(text)) % _ALIGNMENT)
    return zlib.compress(b"".join([struct.pack("<I", len(text)), text, *parts]), level=6)


def _hit_columns(hits: Hits, tracks: Tracks) -> Columns:
    columns: Columns = {
        "hit_id": hits.hit_id.astype(np.float64),  # exact to 2^53; a page has no 64-bit integers
        "x": hits.x,
        "y": hits.y,
        "z": hits.z,
        "label": tracks.labels.astype(np.int32),
        "track_rows": _outwards(hits, tracks.labels),
    }
    if hits.modules is not None:
        columns["volume"] = hits.modules.volume_id
        columns["layer"] = hits.modules.layer_id
    return columns


def _outwards(hits: Hits, owner: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Return the rows of the hits that have an owner, owner by owner, from the origin outwards."""
    rows = np.flatnonzero(owner >= 0)
    distance = np.hypot(np.hypot(hits.x[rows], hits.y[rows]), hits.z[rows])
    outwards: NDArray[np.int32] = rows[np.lexsort((distance, owner[rows]))].astype(np.int32)
    return outwards


def _track_columns(hits: Hits, tracks: Tracks) -> Columns:
    """Return what is known of each track; its momentum is a rough one where it was not fitted."""
    size = np.bincount(tracks.labels[tracks.labels != NO_TRACK], minlength=len(tracks))
    columns: Columns = {"track_hits": size.astype(np.int32)}
    if tracks.parameters is not None:
        names = ("pt", "eta", "phi", "d0", "z0", "charge", "chi2", "quality", "pt_error")
        return columns | {f"track_{name}": getattr(tracks.parameters, name) for name in names}
    on = tracks.labels != NO_TRACK
    mean = [
        np.bincount(tracks.labels[on], axis[on], minlength=len(tracks))
        for axis in (hits.x, hits.y, hits.z)
    ]
    x, y, z = mean
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["track_eta"] = np.arcsinh(z / np.hypot(x, y)).astype(np.float32)
    columns["track_pt"] = transverse_momentum(hits, tracks).astype(np.float32)
    return columns


def _truth_columns(hits: Hits, tracks: Tracks, truth: Truth) -> Columns:
    owner = particle_rows(truth)
    matches = match(tracks.labels, truth)
    # `match` numbers the tracks of three hits or more; the page has all.
    size = np.bincount(tracks.labels[tracks.labels != NO_TRACK], minlength=len(tracks))
    proper = np.flatnonzero(size >= MIN_TRACK_HITS)
    verdict = np.full(len(tracks), TOO_SHORT, np.uint8)
    verdict[proper] = np.where(matches.track_matched, MATCHED, NOT_MATCHED)
    majority, shared = np.full((2, len(tracks)), -1, np.int32)
    majority[proper], shared[proper] = matches.track_particle, matches.track_shared
    particles = truth.particles
    return {
        "particle": owner.astype(np.int32),
        "particle_rows": _outwards(hits, owner),
        "track_verdict": verdict,
        "track_particle": majority,
        "track_shared": shared,
        "particle_hits": matches.particle_hits.astype(np.int32),
        "particle_found": matches.particle_matched.astype(np.uint8),
        "particle_pt": particles.pt.astype(np.float32),
        "particle_eta": particles.eta.astype(np.float32),
        "particle_radius": particles.production_radius.astype(np.float32),
        "particle_charge": particles.q.astype(np.float32),
    }


def _layers(hits: Hits) -> list[dict[str, float]]:
    """Return where the layers of the detector are, as cylinders and disks around the beam line, mm.

    They are drawn from the hits on them, so that any detector whose hits name their layers has some.
    """
    if hits.modules is None:
        return []
    layer_of = hits.modules.volume_id.astype(np.int64) * 1000 + hits.modules.layer_id
    r = np.hypot(hits.x, hits.y)
    layers = []
    for layer in np.unique(layer_of):
        on = layer_of == layer
        inner, outer = (float(v) for v in np.percentile(r[on], (1, 99)))
        low, high = (float(v) for v in np.percentile(hits.z[on], (1, 99)))
        if high - low < _LAYER_SIDES * (outer - inner):
            place = {"z": (low + high) / 2, "inner": inner, "outer": outer}
        else:
            place = {"r": (inner + outer) / 2, "low": low, "high": high}
        layers.append({name: round(value, 1) for name, value in place.items()})
    return layers
