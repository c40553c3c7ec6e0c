"""The radius and the cuts of the stages, chosen on validation events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from trackserve.evaluate.report import Evaluation, evaluate_event
from trackserve.event import Graph, Int64, Tracks, TripletGraph
from trackserve.files import write_text
from trackserve.pipeline.components import TrackBuilder, build_tracks
from trackserve.pipeline.embedding import embed
from trackserve.pipeline.filter import filter_logits
from trackserve.pipeline.gnn import score_edges
from trackserve.pipeline.triplets import triplet_logits
from trackserve.training.embedding import choose_radius
from trackserve.training.events import data_set
from trackserve.training.filter import choose_cut
from trackserve.training.provenance import headline_of
from trackserve.training.triplets import choose_least

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.data.sources import EventSource
    from trackserve.training.graphs import Graphs


def radius(graphs: Graphs, sources: Sequence[EventSource]) -> float:
    """Return the radius within which the recipe's share of the target edges lies."""
    samples = [graphs.sample(source) for source in sources]
    network = graphs.network("embedding")
    points = [embed(network, sample.features) for sample in samples]
    recipe = graphs.recipe
    return choose_radius(points, samples, recipe.embedding.efficiency, recipe.long_edge)


def filter_cut(graphs: Graphs, sources: Sequence[EventSource], efficiency: float) -> float:
    """Return the cut on the filter that keeps this share of the target edges."""
    samples = [graphs.sample(source) for source in sources]
    edges = [graphs.candidates(source) for source in sources]
    network = graphs.network("filter")
    logits = [
        filter_logits(network, Graph(sample.features, edge))
        for sample, edge in zip(samples, edges, strict=True)
    ]
    return choose_cut(logits, samples, edges, efficiency, graphs.recipe.long_edge)


def triplet_cut(graphs: Graphs, sources: Sequence[EventSource], efficiency: float) -> float:
    """Return the cut on the triplet classifier that keeps this share of the target triplets."""
    samples = [graphs.sample(source) for source in sources]
    joined = [graphs.triplets(source) for source in sources]
    network = graphs.network("triplets")
    logits = [
        triplet_logits(network, Graph(sample.features, edges), triplets)
        for sample, (edges, triplets) in zip(samples, joined, strict=True)
    ]
    return choose_least(logits, samples, joined, efficiency, graphs.recipe.long_edge)


def track_cut(graphs: Graphs, sources: Sequence[EventSource], report: Path) -> float:
    """Return the lowest cut of the highest efficiency, averaged over the data sets, with few fakes.

    Writes the numbers of every cut of the recipe to ``report``.
    """
    recipe = graphs.recipe.tracks
    network = graphs.network("gnn")
    scored = []
    for source in tqdm(sources, desc="track cut", unit="event", disable=None):
        graph = TripletGraph(graphs.sample(source).features, *graphs.joined(source))
        event = graphs.event(source)
        scored.append((data_set(source), event, graphs.order(event), score_edges(network, graph)))
    results = {}
    for cut in recipe.cuts:
        builder = TrackBuilder(recipe.method, cut, recipe.min_hits)
        sets: dict[str, Evaluation] = {}
        for name, event, order, scores in scored:
            tracks = in_input_order(build_tracks(scores, builder), order)
            one = evaluate_event(event, tracks)
            sets[name] = sets[name] + one if name in sets else one
        results[cut] = {name: headline_of(each) for name, each in sets.items()}
    write_text(report, json.dumps({str(cut): found for cut, found in results.items()}, indent=1))

    def merit(cut: float) -> float:
        fakes = max(each["fake_rate"] for each in results[cut].values())
        if fakes > recipe.fakes:
            return -fakes
        return float(np.mean([each["headline_efficiency"] for each in results[cut].values()]))

    return max(results, key=merit)


def in_input_order(tracks: Tracks, order: Int64) -> Tracks:
    """Return the tracks of hits in canonical order for the hits as they were read."""
    labels = np.empty_like(tracks.labels)
    labels[order] = tracks.labels
    return Tracks(labels)
