"""The stages of an event in order, and how to run them: the one table, with the contract's tensors.

:data:`trackserve.contract.tensors.STAGES` names the stages, their order and their tensors; this table
adds the function and the network of each. The reference engine runs it whole, the ensemble's models
run a stage each, and the compiled engine is checked against its names when it is loaded.

    features -> order -> embedding -> neighbours -> filter -> cut -> triplets -> gnn -> tracks
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.contract import tensors
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.event import Float32, Graph, Int64, ScoredGraph, Tracks, TripletGraph
from trackserve.pipeline.budget import Watch
from trackserve.pipeline.embedding import embed
from trackserve.pipeline.features import canonical_order, feature_matrix
from trackserve.pipeline.filter import filter_logits, keep_edges, least_logit
from trackserve.pipeline.gnn import gnn_logits, scores_of, with_scores
from trackserve.pipeline.neighbours import neighbours
from trackserve.pipeline.networks import load_network
from trackserve.pipeline.timings import StageClock, Timings
from trackserve.pipeline.tracks import find_tracks
from trackserve.pipeline.triplets import join_edges, keep_triplets, triplet_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnxruntime
    from numpy.typing import NDArray

    from trackserve.bundle import Bundle


@dataclass(frozen=True, eq=False)
class StageContext:
    """What stages need beside their inputs: the bundle, its open networks by name, and threads."""

    bundle: Bundle
    networks: Mapping[str, onnxruntime.InferenceSession]
    threads: int = 1

    @classmethod
    def open(
        cls, bundle: Bundle, threads: int = 1, stages: Iterable[str] | None = None
    ) -> StageContext:
        """Open the networks of these stages, of all if None; one that the bundle lacks is left out."""
        wanted = [s.name for s in STAGES] if stages is None else list(stages)
        names = [name for name in bundle.networks if name in wanted]
        networks = {name: load_network(bundle.path / f"{name}.onnx", threads) for name in names}
        return cls(bundle, networks, threads)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage: its tensors, and the function from its inputs to its outputs, both in their order."""

    model: tensors.Model
    run: Callable[..., tuple[NDArray[Any], ...]]

    @property
    def name(self) -> str:
        """The stage's name: of its Triton model, its timings and its metrics."""
        return self.model.name

    def edges(self, outputs: tuple[NDArray[Any], ...]) -> int | None:
        """Return the number of edges among its outputs, None if it leaves none."""
        return outputs[0].shape[1] if self.model.outputs[0].dims[0] == 2 else None


def _features(context: StageContext, hits: Float32) -> tuple[Float32]:
    return (feature_matrix(hits, context.bundle.features),)


def _order(context: StageContext, features: Float32) -> tuple[Float32, Int64]:
    context.bundle.check_features(features)
    order = canonical_order(features, context.bundle.features)
    return features[order], order


def _embedding(context: StageContext, features: Float32) -> tuple[Float32]:
    return (embed(context.networks["embedding"], features),)


def _neighbours(context: StageContext, embedding: Float32, features: Float32) -> tuple[Int64]:
    bundle = context.bundle
    graph = neighbours(
        embedding,
        features,
        bundle.features,
        radius=bundle.radius,
        limit=bundle.neighbour_limit,
        cuts=bundle.doublet_cuts,
        limits=bundle.budget.limits(len(features)),
        threads=context.threads,
    )
    return (graph.edges,)


def _filter(context: StageContext, features: Float32, edges: Int64) -> tuple[Float32]:
    return (filter_logits(context.networks["filter"], Graph(features, edges)),)


def _cut(context: StageContext, features: Float32, edges: Int64, logits: Float32) -> tuple[Int64]:
    return (keep_edges(Graph(features, edges), logits, context.bundle.filter_cut).edges,)


def _triplets(context: StageContext, features: Float32, edges: Int64) -> tuple[Int64, Int64]:
    settings = context.bundle.triplets
    if settings is None:
        return edges, np.empty((2, 0), np.int64)
    graph = Graph(features, edges)
    limits = context.bundle.budget.limits(len(features))
    triplets = join_edges(graph, context.bundle.features, settings.cuts, limits)
    logits = triplet_logits(context.networks["triplets"], graph, triplets)
    kept = keep_triplets(graph, triplets, logits, least_logit(settings.cut), settings.chain)
    return kept.edges, kept.triplets


def _gnn(context: StageContext, features: Float32, edges: Int64, triplets: Int64) -> tuple[Float32]:
    graph = Graph(features, edges)
    if context.bundle.triplets is not None:
        graph = TripletGraph(features, edges, triplets)
    return (gnn_logits(context.networks["gnn"], graph),)


def _tracks(
    context: StageContext, features: Float32, edges: Int64, logits: Float32, order: Int64
) -> tuple[Int64]:
    return (tracks_in_input_order(context, features, edges, logits, order).labels,)


def tracks_in_input_order(
    context: StageContext,
    features: Float32,
    edges: Int64,
    logits: Float32,
    order: Int64,
    *,
    wanted: Wanted = LABELS_ONLY,
) -> Tracks:
    """Return the last stage's tracks, with the labels ``[N]`` in the order in which the hits came.

    Raises :class:`InputError` for what the bundle can't give.
    """
    stage = context.bundle.track_stage.chosen(wanted)
    scored = with_scores(Graph(features, edges), logits)
    found = find_tracks(scored, stage, parameters=wanted.parameters)
    labels = np.empty_like(order)
    labels[order] = found.labels
    return Tracks(labels, found.parameters)


_FUNCTIONS: tuple[Callable[..., tuple[NDArray[Any], ...]], ...] = (
    *(_features, _order, _embedding, _neighbours, _filter, _cut, _triplets, _gnn, _tracks),
)
STAGES = tuple(Stage(model, run) for model, run in zip(tensors.STAGES, _FUNCTIONS, strict=True))
"""Every stage in the order of an event; scaled features enter at the second, ``order``."""
if any(stage.run.__name__ != f"_{stage.name}" for stage in STAGES):
    message = (
        f"the stages of trackserve.contract.tensors, {', '.join(s.name for s in STAGES)}, are not "
        f"those of trackserve.pipeline.stages, {', '.join(f.__name__[1:] for f in _FUNCTIONS)}"
    )
    raise ImportError(message)


@dataclass(frozen=True, eq=False)
class StageOutputs:
    """What each stage produced for one event; hits are in canonical order.

    ``order`` ``[N]`` holds the input row of each canonical row, ``embedding`` is ``[N, D]``;
    ``candidates`` are the neighbours, ``filtered`` those that passed the filter, ``joined`` those of
    them that are in a triplet, with the triplets, or ``filtered`` for a bundle without the triplet
    classifier. These are of the first pass; ``tracks`` and ``timings`` are of all.
    """

    order: Int64
    embedding: Float32
    candidates: Graph
    filtered: Graph
    joined: Graph
    scored: ScoredGraph
    tracks: Tracks
    timings: Timings
    second: SecondPass | None = None

    def labels(self) -> Int64:
        """Return the track of each hit ``[N]`` in the order of the input."""
        labels = np.empty_like(self.tracks.labels)
        labels[self.order] = self.tracks.labels
        return labels


@dataclass(frozen=True, eq=False)
class SecondPass:
    """What the stages produced of the hits that the first pass left over: ``rows`` of the event's input."""

    rows: Int64
    outputs: StageOutputs


def run_stages(
    context: StageContext, features: Float32, wanted: Wanted = LABELS_ONLY
) -> tuple[dict[tensors.Tensor, NDArray[Any]], Tracks, Timings]:
    """Run every stage on scaled features ``[N, F]``.

    Returns every tensor, the tracks in the order of the input, with what was fitted of each if that
    is wanted, and the timings. Raises :class:`BudgetError` for an event beyond its budget.
    """
    values: dict[tensors.Tensor, NDArray[Any]] = {tensors.FEATURES: features}
    clock, watch = StageClock(), Watch(context.bundle.budget.limits(len(features)))
    *stages, last = STAGES[1:]
    for stage in stages:
        outputs = stage.run(context, *(values[tensor] for tensor in stage.model.inputs))
        clock.stop(stage.name, stage.edges(outputs))
        watch.check()
        values.update(zip(stage.model.outputs, outputs, strict=True))
    inputs = [values[tensor] for tensor in last.model.inputs]
    tracks = tracks_in_input_order(context, *inputs, wanted=wanted)
    clock.stop(last.name)
    values[tensors.LABELS] = tracks.labels
    return values, tracks, clock.timings()


def stage_outputs(
    context: StageContext,
    values: Mapping[tensors.Tensor, NDArray[Any]],
    tracks: Tracks,
    timings: Timings,
) -> StageOutputs:
    """Return what :func:`run_stages` returns as the types of the pipeline."""
    features, order = values[tensors.SORTED], values[tensors.ORDER]
    edges = values[tensors.KEPT_EDGES]
    joined = Graph(features, edges)
    if context.bundle.triplets is not None:
        joined = TripletGraph(features, edges, values[tensors.TRIPLETS])
    return StageOutputs(
        order=order,
        embedding=values[tensors.EMBEDDING],
        candidates=Graph(features, values[tensors.EDGES]),
        filtered=Graph(features, values[tensors.PASSED_EDGES]),
        joined=joined,
        scored=ScoredGraph(features, edges, scores_of(values[tensors.GNN_LOGITS])),
        tracks=Tracks(tracks.labels[order], tracks.parameters),
        timings=timings,
    )
