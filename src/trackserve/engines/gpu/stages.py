"""The stages of one bundle on one device, one after the other."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trackserve.engines.gpu.agreement import check_agreement
from trackserve.engines.gpu.embedding import embed
from trackserve.engines.gpu.filter import keep_edges
from trackserve.engines.gpu.foreign import ForeignNetwork
from trackserve.engines.gpu.gnn import gnn_logits, scores_of
from trackserve.engines.gpu.lists import Pairs, Room, sort
from trackserve.engines.gpu.neighbours import neighbours
from trackserve.engines.gpu.order import (
    DeviceHits,
    NetworkHits,
    canonical_order,
    network_hits,
    upload,
)
from trackserve.engines.gpu.tracks import DeviceTracks, TrackFinder
from trackserve.engines.gpu.triplets import Joined, join_edges, keep_chains, keep_triplets
from trackserve.engines.gpu.weights import Network, read_network
from trackserve.engines.native.networks import UnknownNetworkError
from trackserve.pipeline.budget import Watch
from trackserve.pipeline.filter import least_logit
from trackserve.pipeline.timings import Timings, shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trackserve.bundle import Bundle
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.gpu.device import Device
    from trackserve.event import Float32
    from trackserve.pipeline.budget import Limits


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the stages produced for some events, on the device; edges and triplets are sorted."""

    hits: DeviceHits
    points: Tensor
    candidates: Pairs
    filtered: Pairs
    joined: Joined
    scores: Tensor
    tracks: DeviceTracks


class DeviceStages:
    """A bundle's networks on a device and the settings of its stages; ``notes`` as of a pipeline."""

    def __init__(self, bundle: Bundle, device: Device, precision: str, room: Room) -> None:
        self.bundle, self.device, self.room = bundle, device, room
        self.notes: list[str] = []
        self._networks = {name: self._network(name, precision) for name in bundle.networks}
        self._tracks = TrackFinder(bundle.track_stage, device.name)

    def _network(self, name: str, precision: str) -> Network | ForeignNetwork:
        path = self.bundle.path / f"{name}.onnx"
        foreign = ForeignNetwork(path)
        device, backend = self.device.name, self.device.backend
        try:
            exact = read_network(path, precision="float32", device=device, backend=backend)
            check_agreement(exact, foreign, self.bundle.features, device)
        except UnknownNetworkError as error:
            self.notes.append(f"onnxruntime runs {path.name} on the processor: {error}")
            warnings.warn(self.notes[-1], stacklevel=6)
            return foreign
        return read_network(path, precision=precision, device=device, backend=backend)

    def run(self, events: Sequence[Float32], clock: DeviceClock, wanted: Wanted) -> Outputs:
        """Return what the stages produce for the features ``[N, F]`` of events, taken together.

        Raises :class:`BudgetError` where all together are beyond the budget of the smallest.
        """
        limits = self.bundle.budget.limits(min(map(len, events)))
        bundle, room = self.bundle, self.room
        watch = Watch(bundle.budget.limits(sum(map(len, events))))
        features, position = upload(np.concatenate(events), bundle.features, self.device.name)
        numbers = np.repeat(np.arange(len(events), dtype=np.int32), [len(e) for e in events])
        hits = canonical_order(features, position, torch.from_numpy(numbers).to(features.device))
        seen = self._seen(hits)
        clock.stop("order")
        points = self._embed(hits, seen)
        clock.stop("embedding")
        candidates = neighbours(
            points,
            hits,
            radius=bundle.radius,
            limit=bundle.neighbour_limit,
            cuts=bundle.doublet_cuts,
            room=room,
        )
        limits.check_edges(len(candidates.entries))
        watch.check()  # here and below the host has waited for the device anyway
        clock.stop("neighbours", hits.event, candidates.first)
        filtered = self._filter(hits, seen, candidates)
        clock.stop("filter")
        clock.stop("cut", hits.event, filtered.first)
        joined = self._join(hits, seen, filtered, limits)
        watch.check()
        clock.stop("triplets", hits.event, joined.inner)
        scores = self._score(hits, seen, joined)
        clock.stop("gnn")
        edges = joined.inner, joined.outer
        tracks = self._tracks(hits, edges, scores, room, events=len(events), wanted=wanted)
        clock.stop("tracks")
        return Outputs(hits, points, candidates, filtered, joined, scores, tracks)

    def _seen(self, hits: DeviceHits) -> NetworkHits:
        if any(isinstance(network, Network) for network in self._networks.values()):
            return network_hits(hits.features, self.bundle.features)
        return NetworkHits(hits.features, hits.features)

    def _embed(self, hits: DeviceHits, seen: NetworkHits) -> Tensor:
        network = self._networks["embedding"]
        if isinstance(network, ForeignNetwork):
            return network(hits.features)
        return embed(network, seen)

    def _filter(self, hits: DeviceHits, seen: NetworkHits, edges: Pairs) -> Pairs:
        network, least = self._networks["filter"], least_logit(self.bundle.filter_cut)
        if isinstance(network, ForeignNetwork):
            edges = sort(edges)
            logits = network(hits.features, (edges.first, edges.second))
            return _chosen(edges, logits >= float(least))
        return keep_edges(network, seen, edges, least=least, room=self.room)

    def _join(self, hits: DeviceHits, seen: NetworkHits, edges: Pairs, limits: Limits) -> Joined:
        settings = self.bundle.triplets
        if settings is None:
            return Joined(edges.first, edges.second, edges.first[:0], edges.first[:0])
        triplets = join_edges(edges, hits.position, settings.cuts, room=self.room, limits=limits)
        network, least = self._networks["triplets"], least_logit(settings.cut)
        if isinstance(network, ForeignNetwork):
            triplets = sort(triplets)
            pairs = (edges.first, edges.second), (triplets.first, triplets.second)
            kept = _chosen(triplets, network(hits.features, *pairs) >= float(least))
        else:
            kept = keep_triplets(network, seen, edges, triplets, least=least, room=self.room)
        return keep_chains(edges, kept, settings.chain)

    def _score(self, hits: DeviceHits, seen: NetworkHits, graph: Joined) -> Tensor:
        network = self._networks["gnn"]
        if isinstance(network, Network):
            return scores_of(gnn_logits(network, seen, graph))
        pairs = [(graph.inner, graph.outer)]
        if self.bundle.triplets is not None:
            pairs.append((graph.one, graph.other))
        return scores_of(network(hits.features, *pairs))


class DeviceClock:
    """Times stages on a device without waiting for it, from when it is made.

    A mark goes into the device's stream at the end of each stage; the marks are read once the last
    result has come down. On the processor the wall clock does.
    """

    def __init__(self, device: Device, hits: Sequence[int]) -> None:
        self._on_device, self._hits = not device.in_interpreter, hits
        self._names: list[str] = []
        self._marks: list[torch.cuda.Event] = []
        self._times: list[float] = []
        self._edges: dict[str, Tensor] = {}
        self._mark()

    def _mark(self) -> None:
        if self._on_device:
            mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            mark.record()
            self._marks.append(mark)
        else:
            self._times.append(time.perf_counter())

    def stop(self, stage: str, event: Tensor | None = None, first: Tensor | None = None) -> None:
        """Note that a stage has ended; with the hits' events and the first hits of edges that it leaves."""
        self._names.append(stage)
        self._mark()
        if event is not None and first is not None:
            if len(self._hits) == 1:
                self._edges[stage] = torch.tensor([len(first)])
            else:
                counts = torch.zeros(len(self._hits), dtype=torch.int64, device=first.device)
                ones = torch.ones_like(first)
                self._edges[stage] = counts.scatter_add_(0, event[first].long(), ones)

    def timings(self) -> list[Timings]:
        """Return the timings of each event: what all took, shared by their hits."""
        if self._on_device:
            self._marks[-1].synchronize()
            took = [
                a.elapsed_time(b) / 1000
                for a, b in zip(self._marks[:-1], self._marks[1:], strict=True)
            ]
        else:
            took = np.diff(self._times).tolist()
        seconds = dict(zip(self._names, took, strict=True))
        edges = {stage: counts.tolist() for stage, counts in self._edges.items()}
        own = [
            {stage: counts[i] for stage, counts in edges.items()} for i in range(len(self._hits))
        ]
        return shared(seconds, self._hits, own)


def _chosen(pairs: Pairs, chosen: Tensor) -> Pairs:
    entries = pairs.entries[chosen]
    return Pairs(entries, torch.tensor([len(entries)], device=entries.device))
