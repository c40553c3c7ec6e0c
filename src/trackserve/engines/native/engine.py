"""An event's stages on the compiled kernels, with the results of the reference.

Hits are put in an order in which those close together in the embedding are close together in memory,
and the stages work in that order, on edges that are int32 and not sorted. Only :meth:`NativePipeline.run`
brings the outputs of each stage into the form of the pipeline's types.

    place [N]  the canonical row of each hit in space order
"""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from trackserve.engines.base import Pipeline, TimedTracks
from trackserve.engines.native.abi import EventBudget, PipelineConfig
from trackserve.engines.native.agreement import ReferenceNetwork, check_agreement
from trackserve.engines.native.fitting import Fitting
from trackserve.engines.native.library import OverBudgetError, library
from trackserve.engines.native.networks import CALIBRATED, NativeNetwork, UnknownNetworkError
from trackserve.engines.native.stages import (
    build_tracks,
    canonical_order,
    position_of,
    search_settings,
    sorted_edges,
)
from trackserve.event import (
    Float32,
    Graph,
    Int32,
    Int64,
    ScoredGraph,
    Tracks,
    TripletGraph,
)
from trackserve.pipeline.budget import Watch
from trackserve.pipeline.filter import least_logit
from trackserve.pipeline.stages import StageOutputs
from trackserve.pipeline.timings import StageClock, Timings, shared
from trackserve.track_table import TrackTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.contract.wanted import Wanted
    from trackserve.engines.native.agreement import Network
    from trackserve.engines.native.library import Pairs
    from trackserve.engines.native.networks import Family
    from trackserve.pipeline.budget import Limits
    from trackserve.pipeline.triplets import TripletSettings


@dataclass(frozen=True, eq=False)
class NativeOutputs:
    """The outputs of the stages; ``order`` is as in StageOutputs, edges and triplets are in space order."""

    features: Float32
    order: Int64
    place: Int32
    embedding: Float32
    candidates: Pairs
    filtered: Pairs
    joined: Pairs
    triplets: Pairs | None
    scores: Float32
    tracks: Tracks
    timings: Timings


class NativePipeline(Pipeline):
    """A bundle on the native engine; where it can't run a network, the reference runs that one.

    ``precision`` is what the networks are computed in, the nearest that the library has to the bundle's
    own if None: in ``int8`` the filter and the triplet classifier, the others in the best other one.
    Raises :class:`MissingDependencyError` where the engine is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        precision: str | None = None,
        variant: str | None = None,
    ) -> None:
        self.library = library(variant)
        wanted = precision or bundle.precision
        nearest = self.library.nearest_precision(wanted)
        super().__init__(bundle, threads=threads, precision=nearest)
        if nearest != wanted:
            self.notes.append(
                f"{wanted} is computed in {nearest} by the engine's {self.library.variant} variant"
            )
        self._embed = self._network(bundle.embedding_path)
        self._filter_logits = self._network(bundle.filter_path)
        self._triplet_logits = self._network(bundle.triplets_path) if bundle.triplets else None
        self._gnn_logits = self._network(bundle.gnn_path)
        self._fitting = Fitting.of(bundle.track_stage)
        self._config = self._in_one_call(self._fitting)

    def _in_one_call(self, fitting: Fitting | None) -> PipelineConfig | None:
        """Return what the whole pipeline in one call needs, None where the reference runs a network."""
        bundle = self.bundle
        networks = (self._embed, self._filter_logits, self._triplet_logits, self._gnn_logits)
        handles = [each.handle for each in networks if isinstance(each, NativeNetwork)]
        if len(handles) < len(networks) or bundle.triplets is None:
            return None
        near = search_settings(bundle.radius, bundle.neighbour_limit, bundle.doublet_cuts)
        return PipelineConfig(
            *handles,
            squared_radius=near["squared_radius"],
            limit=near["limit"],
            doublet_cuts=near["cuts"],
            radian=near["radian"],
            features=len(bundle.features.columns),
            dimension=bundle.embedding_dimension,
            filter_threshold=least_logit(bundle.filter_cut),
            triplet_cuts=astuple(bundle.triplets.cuts),
            triplet_threshold=least_logit(bundle.triplets.cut),
            chain=bundle.triplets.chain,
            track_cut=bundle.track_builder.cut,
            walk=bundle.track_builder.method == "walk",
            min_hits=bundle.track_builder.min_hits,
            fitting=None if fitting is None else ctypes.pointer(fitting),
        )

    def _network(self, path: Path) -> Network:
        reference = ReferenceNetwork(path, self.threads)
        try:
            exact = NativeNetwork(path, self.library)
            check_agreement(exact, reference, self.bundle.features)
            return NativeNetwork(path, self.library, precision=self._precision_of(exact.family))
        except UnknownNetworkError as error:
            self.notes.append(f"the reference engine runs {path.name}: {error}")
            warnings.warn(self.notes[-1], stacklevel=3)
            return reference

    def _precision_of(self, family: Family) -> str:
        if self.precision != "int8" or family.ranges is not None:
            return self.precision
        best = "bfloat16" if "bfloat16" in self.library.precisions() else "float32"
        if family.kind in CALIBRATED:
            self.notes.append(
                f"{family.kind}.onnx has no ranges for int8 and is computed in {best}; "
                "`trackserve calibrate` writes them"
            )
        return best

    def _run_events(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        """Return the tracks and timings of each event; events go through the stages together."""
        config = self._config
        if config is None:
            return [self._stage_by_stage(features, wanted) for features in events]
        if not events:
            return []
        if wanted.min_quality is not None:
            fitting = Fitting.of(self.bundle.track_stage.chosen(wanted))  # lives through the call
            config = self._in_one_call(fitting)
            assert config is not None, "the networks are the same"
        features = np.ascontiguousarray(events[0] if len(events) == 1 else np.concatenate(events))
        begins = np.cumsum([0, *map(len, events)])
        limits = [self.bundle.budget.limits(len(each)) for each in events]
        try:
            labels, seconds, edges, tables = self.library.find_tracks(
                config,
                features,
                position_of(features, self.bundle.features),
                begins,
                [EventBudget.of(each) for each in limits],
                threads=self.threads,
                parameters=wanted.parameters,
            )
        except OverBudgetError as over:
            if len(events) == 1:
                raise limits[0].over(over.bound) from None
            return [self._run_events([each], wanted)[0] for each in events]
        timings = shared(seconds, [len(each) for each in events], edges)
        return [
            TimedTracks(
                Tracks(
                    labels[begin:end],
                    None if tables is None else TrackTable.from_matrix(tables[i]),
                ),
                timings[i],
            )
            for i, (begin, end) in enumerate(pairwise(begins.tolist()))
        ]

    def _stage_by_stage(self, features: Float32, wanted: Wanted) -> TimedTracks:
        found = self._find_within_budget(features, wanted)
        labels = np.empty_like(found.tracks.labels)
        labels[found.order] = found.tracks.labels
        return TimedTracks(Tracks(labels, found.tracks.parameters), found.timings)

    def _run(self, features: Float32, wanted: Wanted) -> StageOutputs:
        found = self._find_within_budget(features, wanted)
        candidates, _ = sorted_edges(found.candidates, found.place)
        filtered, _ = sorted_edges(found.filtered, found.place)
        edges, which = sorted_edges(found.joined, found.place)
        graph = found.features
        joined = Graph(graph, edges)
        if found.triplets is not None:
            rank = np.empty(len(which), np.int64)
            rank[which] = np.arange(len(which))
            first, second = rank[found.triplets[0]], rank[found.triplets[1]]
            in_order = np.lexsort((second, first))
            joined = TripletGraph(graph, edges, np.stack([first, second])[:, in_order])
        return StageOutputs(
            found.order,
            found.embedding,
            Graph(graph, candidates),
            Graph(graph, filtered),
            joined,
            ScoredGraph(graph, edges, found.scores[which]),
            found.tracks,
            found.timings,
        )

    def _find_within_budget(self, features: Float32, wanted: Wanted) -> NativeOutputs:
        limits = self.bundle.budget.limits(len(features))
        try:
            return self._find(features, wanted, limits)
        except OverBudgetError as over:
            raise limits.over(over.bound) from None

    def _find(self, features: Float32, wanted: Wanted, limits: Limits) -> NativeOutputs:
        bundle, run, threads, clock = self.bundle, self.library, self.threads, StageClock()
        watch = Watch(limits)
        order = canonical_order(features, bundle.features, run)
        features = features.take(order, axis=0)
        clock.stop("order")
        embedding = self._embed(features, threads=threads)
        clock.stop("embedding")
        place, candidates = run.neighbours(
            embedding,
            position_of(features, bundle.features),
            **search_settings(bundle.radius, bundle.neighbour_limit, bundle.doublet_cuts),
            budget=EventBudget.of(limits, watch.left),
            threads=threads,
        )
        local = features.take(place, axis=0)
        clock.stop("neighbours", len(candidates[0]))
        logits = self._filter_logits(local, candidates, threads=threads)
        clock.stop("filter")
        watch.check()
        least = float(least_logit(bundle.filter_cut))
        filtered = run.keep_edges(logits, least, candidates, len(features), threads=threads)
        clock.stop("cut", len(filtered[0]))
        joined, triplets = filtered, None
        if self._triplet_logits is not None and bundle.triplets is not None:
            budget = EventBudget.of(limits, watch.left)
            triplets = self._find_triplets(local, filtered, bundle.triplets, budget)
            chain = bundle.triplets.chain
            joined, triplets = run.keep_chains(filtered, triplets, chain, threads=threads)
        clock.stop("triplets", len(joined[0]))
        scores = run.scores_of(self._gnn_logits(local, joined, triplets, threads=threads))
        clock.stop("gnn")
        watch.check()
        inner, outer = place.take(joined[0]), place.take(joined[1])
        position = position_of(features, bundle.features)
        tracks = build_tracks(
            position,
            (inner, outer),
            scores,
            stage=bundle.track_stage.chosen(wanted),
            library=run,
            parameters=wanted.parameters,
        )
        clock.stop("tracks")
        return NativeOutputs(
            features=features,
            order=order,
            place=place,
            embedding=embedding,
            candidates=candidates,
            filtered=filtered,
            joined=joined,
            triplets=triplets,
            scores=scores,
            tracks=tracks,
            timings=clock.timings(),
        )

    def _find_triplets(
        self, local: Float32, edges: Pairs, settings: TripletSettings, budget: EventBudget
    ) -> Pairs:
        """Return the triplets that the cuts and the network leave; joined and scored in one go if it is native."""
        assert self._triplet_logits is not None, "this bundle has no triplets"
        network, threads = self._triplet_logits, self.threads
        position, cuts = position_of(local, self.bundle.features), astuple(settings.cuts)
        least = float(least_logit(settings.cut))
        if isinstance(network, NativeNetwork):
            return network.find_triplets(
                local,
                edges,
                position,
                cuts=cuts,
                threshold=least,
                budget=budget,
                threads=threads,
            )
        triplets = self.library.join_edges(
            position, edges, cuts=cuts, budget=budget, threads=threads
        )
        kept = network(local, edges, triplets, threads=threads) >= least
        return triplets[0][kept], triplets[1][kept]
