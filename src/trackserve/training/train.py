"""The whole training: events in, bundle out.

embedding -> radius -> filter -> cut -> triplets -> cut -> GNN -> track cut -> ranges for 8 bits
-> quality of tracks -> physics on unseen events

Each network is trained on what the stage before it really gives: its ONNX file, run by the pipeline's
own stages; the filter and the triplet classifier are pruned first if the recipe asks for it.
Everything is kept in a working folder beside the bundle, so a training that was killed goes on where it
was.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.data import find_events
from trackserve.errors import InputError
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.training import choices
from trackserve.training.calibrate import EVENTS, some, write_ranges
from trackserve.training.embedding import EmbeddingLoss
from trackserve.training.events import data_set, split, truth_of
from trackserve.training.export import export_network, take_weights, write_description
from trackserve.training.filter import FilterLoss
from trackserve.training.fit import Loss, fit
from trackserve.training.gnn import GnnLoss
from trackserve.training.graphs import Graphs
from trackserve.training.like import model_bundle, with_quality, with_tables_of
from trackserve.training.networks import Embedding, Filter, Gnn, TripletFilter
from trackserve.training.provenance import (
    columns_of,
    description,
    measured_physics,
)
from trackserve.training.prune import pruned
from trackserve.training.triplets import TripletLoss
from trackserve.training.working_folder import Chosen, claim, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from trackserve.bundle import Bundle
    from trackserve.event import Float32, Int64
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
    networks: Path | None = None,
    start: Path | None = None,
) -> None:
    """Train a bundle on the events in these folders or archives and write it to ``bundle``.

    Radius and cuts are chosen on the events of the first place of ``apart``, the finished bundle is
    measured on those of the second. Without, the last events of each data set are kept apart for
    that: ``recipe.validation`` and ``recipe.test`` of them. With ``networks``, a bundle, its networks
    are taken as they are, and only radius and cuts are chosen; with ``start``, a bundle, the recipe's
    ``start`` begin at its weights where they have the same shape. Warns of a recipe without cuts on
    doublets, which costs hours. Raises :class:`InputError` where a
    data set then has fewer than three events, or no truth.
    """
    if recipe.doublet_cuts == DoubletCuts():
        warnings.warn(
            "the recipe has no [doublet_cuts]: training and the finished bundle take many times as long "
            "with every pair of hits that lie near each other; the shipped recipes have some",
            stacklevel=2,
        )
    Training(data, bundle, recipe, device=device, apart=apart, networks=networks, start=start).run()


class Training:
    """One training, with its working folder ``BUNDLE.training``."""

    def __init__(
        self,
        data: Sequence[Path],
        bundle: Path,
        recipe: Recipe,
        *,
        device: str = "auto",
        apart: tuple[Path, Path] | None = None,
        networks: Path | None = None,
        start: Path | None = None,
    ) -> None:
        bundle = bundle.resolve()
        if bundle.exists() and not (bundle / BUNDLE_FILE).is_file():
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
        self.data = (*data, *(apart or ()))
        events = [f"{data_set(s)}/{s.event_id}" for s in self.train + self.validation + self.test]
        self.networks = None if networks is None else read_bundle(networks)
        self.start = None if start is None else read_bundle(start)
        self.like = model_bundle(recipe)
        for part in (self.train, self.validation, self.test):
            truth_of(part[0].read())
        given = {"networks": self.networks, "start": self.start}
        taken = {name: each.digest() for name, each in given.items() if each is not None}
        names = [path.name for path in self.data]
        self.folder.mkdir(parents=True, exist_ok=True)
        claim(self.folder, {"data": names, "events": events, "recipe": asdict(recipe), **taken})
        self.threads = torch.get_num_threads()
        self.chosen = Chosen(self.folder / "chosen.json")
        self.graphs = Graphs(self.folder, recipe, self.chosen, self.threads)

    def run(self) -> None:
        """Train the four networks in turn and write the bundle."""
        recipe, graphs, validation = self.recipe, self.graphs, self.validation
        choose = self.chosen.choose
        torch.manual_seed(recipe.seed)
        filter_cut = partial(choices.filter_cut, graphs, validation)
        triplet_cut = partial(choices.triplet_cut, graphs, validation)
        track_cuts = self.folder / "track_cuts.json"
        if self.networks is not None:
            self._take_networks(self.networks)
        train = self.networks is None
        if train:
            self._train_embedding()
        choose("radius", lambda: choices.radius(graphs, validation))
        if train:
            self._train_filter()
        choose("filter_cut", lambda: filter_cut(recipe.filter.efficiency))
        choose("served_filter_cut", lambda: filter_cut(recipe.filter.served_efficiency))
        if train:
            self._train_triplets()
        choose("triplet_cut", lambda: triplet_cut(recipe.triplets.efficiency))
        choose("served_triplet_cut", lambda: triplet_cut(recipe.triplets.served_efficiency))
        if train:
            self._train_gnn()
        if self.like is None:
            choose("track_cut", lambda: choices.track_cut(graphs, validation, track_cuts))
        self._calibrate()
        self._describe()
        publish(self.folder, self.bundle)

    # ---- the four networks

    def _take_networks(self, bundle: Bundle) -> None:
        """Copy the networks of a bundle, which are then not trained."""
        if bundle.triplets is None or bundle.features != self.recipe.features:
            message = (
                f"the networks of {bundle.path} can't be taken; expected all four, for the features "
                f"{', '.join(self.recipe.features.columns)} and scales of the recipe"
            )
            raise InputError(message)
        for name in bundle.networks:
            shutil.copy2(bundle.path / f"{name}.onnx", self.folder)

    def _train_embedding(self) -> None:
        settings = self.recipe.embedding
        network = Embedding(
            self.recipe.features,
            width=settings.width,
            layers=settings.layers,
            dimension=settings.dimension,
        )
        samples = [partial(self.graphs.sample, source) for source in self.train]
        loss = EmbeddingLoss(network, samples, self.recipe, self.device, self.graphs.search)
        self._fit(network, loss, "embedding", len(samples), settings)
        features = self.graphs.sample(self.train[0]).features
        self._export(network, "embedding", features)

    def _train_filter(self) -> None:
        settings = self.recipe.filter
        network = Filter(self.recipe.features, width=settings.width, layers=settings.layers)
        sources = self.train[:: max(1, len(self.train) // settings.events)]
        samples = [partial(self.graphs.sample, source) for source in sources]
        candidates = [partial(self.graphs.mapped_candidates, source) for source in sources]

        def loss(network: Filter) -> FilterLoss:
            return FilterLoss(network, samples, candidates, self.recipe, self.device)

        self._fit(network, loss(network), "filter", len(samples), settings)
        network = self._prune(network, loss, "filter", len(samples), settings)
        some_edges = self.graphs.candidates(sources[0])[:, :100_000]
        self._export(network, "filter", samples[0]().features, some_edges)

    def _train_triplets(self) -> None:
        settings = self.recipe.triplets
        network = TripletFilter(self.recipe.features, width=settings.width, layers=settings.layers)
        sources = self.train[:: max(1, len(self.train) // settings.events)]
        samples = [partial(self.graphs.sample, source) for source in sources]
        graphs = [partial(self.graphs.mapped_triplets, source) for source in sources]

        def loss(network: TripletFilter) -> TripletLoss:
            return TripletLoss(network, samples, graphs, self.recipe, self.device)

        self._fit(network, loss(network), "triplets", len(samples), settings)
        network = self._prune(network, loss, "triplets", len(samples), settings)
        edges, triplets = self.graphs.triplets(sources[0])
        self._export(network, "triplets", samples[0]().features, edges, triplets[:, :100_000])

    def _train_gnn(self) -> None:
        settings = self.recipe.gnn
        network = Gnn(self.recipe.features, width=settings.width, steps=settings.steps)
        sources = self.train[:: max(1, len(self.train) // settings.events)]
        samples = [partial(self.graphs.sample, source) for source in sources]
        graphs = [partial(self.graphs.joined, source) for source in sources]
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
        if self.start is not None and name in self.recipe.start and name in self.start.networks:
            take_weights(network, self.start.path / f"{name}.onnx")
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

    def _calibrate(self) -> None:
        """Write the activation ranges for 8 bits into the networks that can be computed in them."""
        seen: dict[str, list[Seen]] = {"filter": [], "triplets": []}
        for source in self.validation[:EVENTS]:
            features = self.graphs.sample(source).features
            edges, triplets = self.graphs.triplets(source)
            seen["filter"].append((features, some(self.graphs.candidates(source))))
            seen["triplets"].append((features, edges, some(triplets)))
        for name, events in seen.items():
            write_ranges(self.folder / f"{name}.onnx", events)

    def _describe(self) -> None:
        """Write ``bundle.toml``, and again with the physics that the bundle then has."""
        events = {"train": self.train, "validation": self.validation, "test": self.test}
        whole = description(
            self.recipe,
            self.chosen,
            data=self.data,
            events={name: len(sources) for name, sources in events.items()},
            taken={"networks": self.networks, "start": self.start},
        )
        if self.like is not None:
            whole = with_tables_of(self.like, whole, self.recipe)
            whole = with_quality(self.folder, whole, self.validation)
        write_description(self.folder, whole)
        whole["provenance"]["physics"] = measured_physics(self.folder, self.test, self.threads)
        write_description(self.folder, whole)


def find_device(name: str) -> torch.device:
    """Return the device of this name, a GPU if there is one for ``auto``; InputError if none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:
        message = f"torch can't use the device {name!r}: {str(error).splitlines()[0]}"
        raise InputError(message) from None
