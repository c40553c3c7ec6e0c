"""The whole training: events in, bundle out.

embedding -> radius -> filter -> cut -> triplets -> cut -> GNN -> track cut -> ranges for 8 bits
-> physics on unseen events

Each network is trained on what the stage before it really gives: its ONNX file, run by the pipeline's
own stages; the filter and the network on triplets are pruned first, where the recipe says so.
Everything is kept in a working folder beside the bundle, so a training that was killed goes on where it
was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from trackserve import __version__
from trackserve.bundle import DESCRIPTION, read_bundle
from trackserve.data import find_events
from trackserve.engines.native import engine as native
from trackserve.engines.native.library import library
from trackserve.errors import InputError, MissingDependencyError
from trackserve.evaluate.report import Evaluation, evaluate, evaluate_event, with_stages
from trackserve.event import Event, Float32, Graph, Int64, Tracks, TripletGraph
from trackserve.files import whole, whole_folder, write_text
from trackserve.pipeline import Pipeline
from trackserve.pipeline.components import TrackBuilder, build_tracks
from trackserve.pipeline.embedding import embed
from trackserve.pipeline.features import canonical_order, hit_features
from trackserve.pipeline.filter import filter_logits, keep_edges, least_logit
from trackserve.pipeline.gnn import score_edges
from trackserve.pipeline.neighbours import neighbours
from trackserve.pipeline.networks import load_network
from trackserve.pipeline.triplets import join_edges, keep_triplets, triplet_logits
from trackserve.training.calibrate import EVENTS, some, write_ranges
from trackserve.training.embedding import EmbeddingLoss, choose_radius
from trackserve.training.export import export_network, write_description
from trackserve.training.filter import FilterLoss, choose_cut
from trackserve.training.fit import Loss, fit
from trackserve.training.gnn import GnnLoss
from trackserve.training.networks import Embedding, Filter, Gnn, TripletFilter
from trackserve.training.prune import pruned
from trackserve.training.samples import Sample, make_sample
from trackserve.training.triplets import TripletLoss, choose_least

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxruntime import InferenceSession
    from torch import nn

    from trackserve.data.sources import EventSource
    from trackserve.training.calibrate import Seen
    from trackserve.training.prune import AnyFilter
    from trackserve.training.recipe import (
        EmbeddingRecipe,
        FilterRecipe,
        GnnRecipe,
        Recipe,
        TripletsRecipe,
    )


def train(
    data: Sequence[Path],
    bundle: Path,
    recipe: Recipe,
    *,
    device: str = "auto",
    apart: tuple[Path, Path] | None = None,
) -> None:
    """Train a bundle on the events in these folders or archives and write it to ``bundle``.

    Radius and cuts are chosen on the events of the first place of ``apart``, the finished bundle is
    measured on those of the second. Without, the last events of each data set are kept apart for
    that: ``recipe.validation`` and ``recipe.test`` of them. Raises :class:`InputError` where a data
    set then has fewer than three events, or no truth.
    """
    Training(data, bundle, recipe, device, apart).run()


class Training:
    """One training, with its working folder ``BUNDLE.training``."""

    def __init__(
        self,
        data: Sequence[Path],
        bundle: Path,
        recipe: Recipe,
        device: str,
        apart: tuple[Path, Path] | None = None,
    ) -> None:
        bundle = bundle.resolve()
        if bundle.exists() and not (bundle / DESCRIPTION).is_file():
            message = (
                f"{bundle} exists and is not a bundle; name a new folder, or a bundle to replace"
            )
            raise InputError(message)
        self.recipe, self.bundle = recipe, bundle
        self.device = find_device(device)
        sets = [find_events(path) for path in data]
        if apart is None:
            self.train, self.validation, self.test = split(sets, recipe)
        else:
            self.train = [source for each in sets for source in each]
            self.validation, self.test = (list(find_events(path)) for path in apart)
        self.folder = bundle.with_name(bundle.name + ".training")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = [str(path.name) for path in (*data, *(apart or ()))]
        events = [f"{data_set(s)}/{s.event_id}" for s in self.train + self.validation + self.test]
        claim(self.folder, {"data": self.data, "events": events, "recipe": asdict(recipe)})
        self.threads = torch.get_num_threads()
        self._neighbours = fastest_neighbours()
        self._samples: dict[str, Sample] = {}

    def run(self) -> None:
        """Train the four networks in turn and write the bundle."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        self._train_embedding()
        self._choose("radius", self._choose_radius)
        self._train_filter()
        self._choose("filter_cut", self._choose_filter_cut)
        self._train_triplets()
        self._choose("triplet_cut", self._choose_triplet_cut)
        self._train_gnn()
        self._choose("served_filter_cut", partial(self._choose_filter_cut, served=True))
        self._choose("served_triplet_cut", partial(self._choose_triplet_cut, served=True))
        self._choose("track_cut", self._choose_track_cut)
        self._calibrate()
        self._describe(physics={})
        self._describe(physics=self._physics())
        publish(self.folder, self.bundle)

    # ---- the four networks

    def _train_embedding(self) -> None:
        settings = self.recipe.embedding
        network = Embedding(
            self.recipe.features,
            width=settings.width,
            layers=settings.layers,
            dimension=settings.dimension,
        )
        samples = [partial(self._sample, source) for source in self.train]
        loss = EmbeddingLoss(network, samples, self.recipe, self.device, self._neighbours)
        self._fit(network, loss, "embedding", len(samples), settings)
        features = self._sample(self.train[0]).features
        self._export(network, "embedding", features)

    def _train_filter(self) -> None:
        settings = self.recipe.filter
        network = Filter(self.recipe.features, width=settings.width, layers=settings.layers)
        sources = self.train[:: max(1, len(self.train) // settings.events)]
        samples = [partial(self._sample, source) for source in sources]
        candidates = [partial(self._mapped, self._candidates, "candidates", s) for s in sources]

        def loss(network: Filter) -> FilterLoss:
            return FilterLoss(network, samples, candidates, self.recipe, self.device)

        self._fit(network, loss(network), "filter", len(samples), settings)
        network = self._prune(network, loss, "filter", len(samples), settings)
        some_edges = self._candidates(sources[0])[:, :100_000]
        self._export(network, "filter", samples[0]().features, some_edges)

    def _train_triplets(self) -> None:
        settings = self.recipe.triplets
        network = TripletFilter(self.recipe.features, width=settings.width, layers=settings.layers)
        sources = self.train[:: max(1, len(self.train) // settings.events)]
        samples = [partial(self._sample, source) for source in sources]
        graphs = [partial(self._mapped_triplets, source) for source in sources]

        def loss(network: TripletFilter) -> TripletLoss:
            return TripletLoss(network, samples, graphs, self.recipe, self.device)

        self._fit(network, loss(network), "triplets", len(samples), settings)
        network = self._prune(network, loss, "triplets", len(samples), settings)
        edges, triplets = self._triplets(sources[0])
        self._export(network, "triplets", samples[0]().features, edges, triplets[:, :100_000])

    def _train_gnn(self) -> None:
        settings = self.recipe.gnn
        network = Gnn(self.recipe.features, width=settings.width, steps=settings.steps)
        samples = [partial(self._sample, source) for source in self.train]
        graphs = [partial(self._joined, source) for source in self.train]
        loss = GnnLoss(network, samples, graphs, self.recipe, self.device)
        self._fit(network, loss, "gnn", len(samples), settings)
        self._export(network, "gnn", samples[0]().features, *graphs[0]())

    def _fit(
        self,
        network: nn.Module,
        loss: Loss,
        name: str,
        events: int,
        settings: EmbeddingRecipe | FilterRecipe | TripletsRecipe | GnnRecipe,
    ) -> None:
        fit(
            network.to(self.device),
            loss,
            name=name,
            events=events,
            updates=settings.updates,
            learning_rate=settings.learning_rate,
            seed=self.recipe.seed,
            folder=self.folder,
        )

    def _prune(
        self,
        network: AnyFilter,
        loss: Callable[[AnyFilter], Loss],
        name: str,
        events: int,
        settings: FilterRecipe | TripletsRecipe,
    ) -> AnyFilter:
        """Return the network pruned and trained on, if its settings ask for it."""
        if not settings.pruned:
            return network
        network = pruned(network, settings.pruned)
        further = replace(settings, updates=settings.pruned_updates)
        self._fit(network, loss(network), f"{name}-pruned", events, further)
        return network

    def _export(
        self,
        network: nn.Module,
        name: str,
        features: Float32,
        edges: Int64 | None = None,
        triplets: Int64 | None = None,
    ) -> None:
        settings = asdict(getattr(self.recipe, name))
        sizes: dict[str, Any] = {
            k: settings[k] for k in ("width", "layers", "steps", "dimension") if k in settings
        }
        if settings.get("pruned"):
            sizes["width"] = settings["pruned"]
        export_network(
            network,
            self.folder / f"{name}.onnx",
            output="embedding" if name == "embedding" else "logits",
            description={"kind": name, **sizes, **columns_of(self.recipe)},
            features=features,
            edges=edges,
            triplets=triplets,
        )

    # ---- what each stage gives the next, event by event

    def _sample(self, source: EventSource) -> Sample:
        if source.prefix not in self._samples:
            event = self._read(source)
            sample = make_sample(event, self.recipe)
            self._samples[source.prefix] = sample
        return self._samples[source.prefix]

    def _read(self, source: EventSource) -> Event:
        return source.read_columns(self.recipe.features.wire_columns)

    def _candidates(self, source: EventSource) -> Int64:
        def find() -> Int64:
            features = self._sample(source).features
            return self._neighbours(
                embed(self._network("embedding"), features),
                features,
                self.recipe.features,
                radius=self._chosen("radius"),
                limit=self.recipe.embedding.neighbour_limit,
                cuts=self.recipe.doublet_cuts,
                threads=self.threads,
            ).edges

        return self._kept("candidates", source, find)

    def _filtered(self, source: EventSource) -> Int64:
        def find() -> Int64:
            graph = Graph(self._sample(source).features, self._candidates(source))
            logits = filter_logits(self._network("filter"), graph)
            return keep_edges(graph, logits, self._chosen("filter_cut")).edges

        return self._kept("filtered", source, find)

    def _triplets(self, source: EventSource) -> tuple[Int64, Int64]:
        """Return the edges after the filter and the triplets that pass the cuts."""
        edges = self._filtered(source)

        def find() -> Int64:
            graph = Graph(self._sample(source).features, edges)
            return join_edges(graph, self.recipe.features, self.recipe.triplet_cuts)

        return edges, self._kept("triplets", source, find)

    def _joined(self, source: EventSource) -> tuple[Int64, Int64]:
        """Return the edges and triplets that the network on triplets leaves."""

        @cache
        def find() -> TripletGraph:
            edges, triplets = self._triplets(source)
            graph = Graph(self._sample(source).features, edges)
            logits = triplet_logits(self._network("triplets"), graph, triplets)
            least = least_logit(self._chosen("triplet_cut"))
            return keep_triplets(graph, triplets, logits, least, self.recipe.triplets.chain)

        edges = self._kept("joined_edges", source, lambda: find().edges)
        return edges, self._kept("joined_triplets", source, lambda: find().triplets)

    def _mapped(
        self, find: Callable[[EventSource], object], name: str, source: EventSource
    ) -> Int64:
        """Return what is kept as int32 on disk, of which an update takes a few rows only."""
        path = self._place(name, source)
        if not path.is_file():
            find(source)
        mapped: Int64 = np.load(path, mmap_mode="r")
        return mapped

    def _mapped_triplets(self, source: EventSource) -> tuple[Int64, Int64]:
        return self._filtered(source), self._mapped(self._triplets, "triplets", source)

    def _place(self, name: str, source: EventSource) -> Path:
        place = hashlib.sha256(source.prefix.encode()).hexdigest()[:16]
        return self.folder / name / f"{place}.npy"

    def _kept(self, name: str, source: EventSource, find: Callable[[], Int64]) -> Int64:
        """Return edges from the working folder, or find them and keep them there."""
        path = self._place(name, source)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            with whole(path) as beside:
                np.save(beside, find().astype(np.int32))
        edges: Int64 = np.load(path).astype(np.int64)
        return edges

    def _network(self, name: str) -> InferenceSession:
        return load_network(self.folder / f"{name}.onnx", self.threads)

    # ---- radius and cuts, chosen on validation events

    def _choose_radius(self) -> float:
        samples = [self._sample(source) for source in self.validation]
        network = self._network("embedding")
        points = [embed(network, sample.features) for sample in samples]
        recipe = self.recipe
        return choose_radius(points, samples, recipe.embedding.efficiency, recipe.long_edge)

    def _choose_filter_cut(self, *, served: bool = False) -> float:
        samples = [self._sample(source) for source in self.validation]
        edges = [self._candidates(source) for source in self.validation]
        network = self._network("filter")
        logits = [
            filter_logits(network, Graph(sample.features, edge))
            for sample, edge in zip(samples, edges, strict=True)
        ]
        recipe = self.recipe
        share = recipe.filter.served_efficiency if served else recipe.filter.efficiency
        return choose_cut(logits, samples, edges, share, recipe.long_edge)

    def _choose_triplet_cut(self, *, served: bool = False) -> float:
        samples = [self._sample(source) for source in self.validation]
        graphs = [self._triplets(source) for source in self.validation]
        network = self._network("triplets")
        logits = [
            triplet_logits(network, Graph(sample.features, edges), triplets)
            for sample, (edges, triplets) in zip(samples, graphs, strict=True)
        ]
        recipe = self.recipe
        share = recipe.triplets.served_efficiency if served else recipe.triplets.efficiency
        return choose_least(logits, samples, graphs, share, recipe.long_edge)

    def _choose_track_cut(self) -> float:
        """Return the lowest cut of the most efficiency, on average over the data sets, with few fakes."""
        network, recipe = self._network("gnn"), self.recipe
        scored = []
        for source in tqdm(self.validation, desc="track cut", unit="event"):
            graph = TripletGraph(self._sample(source).features, *self._joined(source))
            event = self._read(source)
            scores = score_edges(network, graph)
            scored.append((data_set(source), event, self._order(event), scores))
        results = {}
        for track_cut in recipe.tracks.cuts:
            builder = TrackBuilder(recipe.tracks.method, track_cut, recipe.tracks.min_hits)
            found: dict[str, Evaluation] = {}
            for name, event, order, scores in scored:
                tracks = in_input_order(build_tracks(scores, builder), order)
                one = evaluate_event(event, tracks)
                found[name] = found[name] + one if name in found else one
            results[track_cut] = {name: headline_of(each) for name, each in found.items()}
        with (self.folder / "track_cuts.json").open("w", encoding="utf-8") as file:
            json.dump({str(cut): found for cut, found in results.items()}, file, indent=1)

        def worth(cut: float) -> float:
            sets = results[cut].values()
            fakes = max(s["fake_rate"] for s in sets)
            if fakes > recipe.tracks.fakes:
                return -fakes
            return float(np.mean([s["headline_efficiency"] for s in sets]))

        return max(results, key=worth)

    def _order(self, event: Event) -> Int64:
        columns = self.recipe.features
        return canonical_order(hit_features(event.hits, columns), columns)

    def _choose(self, name: str, choose: Callable[[], float]) -> None:
        """Choose a number and keep it, unless this training has chosen it earlier."""
        path = self.folder / "chosen.json"
        chosen: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        if name not in chosen:
            chosen[name] = choose()
            write_text(path, json.dumps(chosen, indent=1))

    def _chosen(self, name: str) -> float:
        """Return a number that was chosen."""
        return float(json.loads((self.folder / "chosen.json").read_text())[name])

    # ---- the finished bundle

    def _calibrate(self) -> None:
        """Write into the networks that 8 bits are for what these must hold on validation events."""
        seen: dict[str, list[Seen]] = {"filter": [], "triplets": []}
        for source in self.validation[:EVENTS]:
            features = self._sample(source).features
            edges, triplets = self._triplets(source)
            seen["filter"].append((features, some(self._candidates(source))))
            seen["triplets"].append((features, edges, some(triplets)))
        for name, events in seen.items():
            write_ranges(self.folder / f"{name}.onnx", events)

    def _physics(self) -> dict[str, Any]:
        """Measure the bundle on the events that nothing was trained or chosen on, by data set."""
        find = with_stages(Pipeline(read_bundle(self.folder), threads=self.threads))
        measured = {}
        for name, sources in self._test_sets().items():
            bar = tqdm(sources, desc=f"test {name}", unit="event")
            measured[name] = headline_of(evaluate(map(self._read, bar), find))
        return measured

    def _test_sets(self) -> dict[str, list[EventSource]]:
        sets: dict[str, list[EventSource]] = {}
        for source in self.test:
            sets.setdefault(data_set(source), []).append(source)
        return sets

    def _describe(self, *, physics: dict[str, Any]) -> None:
        recipe = self.recipe
        description = {
            "name": recipe.name,
            "detector": recipe.detector,
            "precision": recipe.precision,
            "features": {**columns_of(recipe), "absent": dict(recipe.features.absent)},
            "embedding": {"dimension": recipe.embedding.dimension},
            "neighbours": {
                "radius": self._chosen("radius"),
                "limit": recipe.embedding.neighbour_limit,
                "cuts": asdict(recipe.doublet_cuts),
            },
            "filter": {"cut": self._chosen("served_filter_cut")},
            "triplets": {
                "chain": self.recipe.triplets.chain,
                "cut": self._chosen("served_triplet_cut"),
                "cuts": asdict(recipe.triplet_cuts),
            },
            "tracks": {
                "method": recipe.tracks.method,
                "cut": self._chosen("track_cut"),
                "min_hits": recipe.tracks.min_hits,
            },
            "provenance": {
                "data": self.data,
                "events": {
                    "train": len(self.train),
                    "validation": len(self.validation),
                    "test": len(self.test),
                },
                "seed": recipe.seed,
                "versions": {
                    "trackserve": __version__,
                    **{name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")},
                },
                "recipe": asdict(recipe),
                "physics": physics,
            },
        }
        write_description(self.folder, description)


def find_device(name: str) -> torch.device:
    """Return the device of this name, a GPU if there is one for ``auto``; InputError if none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:
        message = f"torch can't use the device {name!r}: {str(error).splitlines()[0]}"
        raise InputError(message) from None


def fastest_neighbours() -> Callable[..., Graph]:
    """Return the native engine's neighbour search, or the reference's where it isn't installed.

    Both give the same edges.
    """
    try:
        return partial(native.neighbours, library=library())
    except MissingDependencyError:
        return neighbours


def split(
    sets: Sequence[Sequence[EventSource]], recipe: Recipe
) -> tuple[list[EventSource], list[EventSource], list[EventSource]]:
    """Return the events for training, validation and test: the last ones of each set are apart."""
    parts: tuple[list[EventSource], list[EventSource], list[EventSource]] = ([], [], [])
    for events in sets:
        validation = max(1, round(recipe.validation * len(events)))
        test = max(1, round(recipe.test * len(events)))
        train = len(events) - validation - test
        if train < 1:
            message = f"a data set has {len(events)} events; training needs at least three of each"
            raise InputError(message)
        parts[0].extend(events[:train])
        parts[1].extend(events[train : train + validation])
        parts[2].extend(events[train + validation :])
    return parts


def data_set(source: EventSource) -> str:
    """Return the name of the folder or archive that an event lies in."""
    return Path(source.prefix).parent.name


def columns_of(recipe: Recipe) -> dict[str, Any]:
    """Return the features as ``bundle.toml`` and the networks' metadata name them."""
    columns = recipe.features
    return {"columns": list(columns.columns), "scales": list(columns.scales)}


def headline_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the numbers that a bundle is known by."""
    return {
        "events": evaluation.events,
        **{
            f"{name}_efficiency": round(counts.efficiency.value, 4)
            for name, counts in evaluation.targets.items()
        },
        "fake_rate": round(evaluation.fakes.value, 4),
        "duplicate_rate": round(evaluation.duplicates.value, 4),
        "trackml_score": round(float(np.mean(evaluation.scores)), 4),
        **{
            f"{name}_edges_per_event": round(counts.edges / evaluation.events)
            for name, counts in evaluation.stages.items()
        },
        **{
            f"{name}_edge_efficiency": round(counts.efficiency.value, 4)
            for name, counts in evaluation.stages.items()
        },
    }


def in_input_order(tracks: Tracks, order: Int64) -> Tracks:
    """Return the tracks of hits in canonical order for the hits as they were read."""
    labels = np.empty_like(tracks.labels)
    labels[order] = tracks.labels
    return Tracks(labels)


def claim(folder: Path, what: dict[str, Any]) -> None:
    """Note in the working folder what is trained there; raise if it is something else."""
    note = folder / "training.json"
    text = json.dumps(what, indent=1, sort_keys=True)
    if note.is_file() and note.read_text(encoding="utf-8") != text:
        message = (
            f"{folder} holds a training of other events or another recipe; remove it to start "
            "anew, or give the same events and recipe to go on with it"
        )
        raise InputError(message)
    write_text(note, text)


def publish(folder: Path, bundle: Path) -> None:
    """Copy the finished bundle out of the working folder to its place, whole or not at all."""
    with whole_folder(bundle) as beside:
        for member in (DESCRIPTION, *(f"{name}.onnx" for name in read_bundle(folder).networks)):
            shutil.copy2(folder / member, beside / member)
