"""Every tensor that goes over the wire or between the models of the service: the one table.

The models' configurations, the server's side, the client and the documentation are made from it, so
each name is written here and nowhere else. Symbols in ``dims``:

    N   hits of an event        C   columns of a hit       F   features of a hit
    E   edges of a graph        K   edges that are kept    D   dimensions of the embedding
    P   edges past the filter   T   triplets               R   tracks
    B   bytes

N, E, P, K, T, R and B vary from event to event; C, F and D are those of the bundle that is served.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trackserve.track_table import TRACK_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

OF_BUNDLE = "."
"""Between a model's name and that of its bundle, where a server has several: ``track_finding.NAME``."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name, KServe data type, dimensions and meaning."""

    name: str
    dtype: Literal["FP32", "INT64", "UINT8", "BYTES"]
    dims: tuple[str | int, ...]
    meaning: str

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the dimensions in numbers, -1 for a symbol that ``sizes`` does not fix."""
        return tuple(d if isinstance(d, int) else sizes.get(d, -1) for d in self.dims)


@dataclass(frozen=True)
class Model:
    """One model of the service: its inputs, its outputs, and the outputs that a request may ask for."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    meaning: str
    on_request: tuple[Tensor, ...] = ()
    compact: tuple[Tensor, Tensor] | None = None
    """An input that may come instead of the one, and the output that then comes instead of the first."""
    warning: Tensor | None = None
    """An output that comes only where there is something to warn of."""

    @property
    def all_outputs(self) -> tuple[Tensor, ...]:
        """Every output that an answer may have, in the order of the model's configuration."""
        more = (*(self.compact or ())[1:], *([self.warning] if self.warning else []))
        return (*self.outputs, *self.on_request, *more)

    @property
    def in_compact_form(self) -> Model:
        """The model as it is for who sends and receives the compact tensors."""
        assert self.compact is not None
        given, returned = self.compact
        return replace(self, inputs=(given,), outputs=(returned,), compact=None)

    def of(self, bundle: str) -> Model:
        """Return the model of another bundle on the same server; of the first one for ``""``."""
        return replace(self, name=f"{self.name}{OF_BUNDLE}{bundle}") if bundle else self


HITS = Tensor("HITS", "FP32", ("N", "C"), "a row for each hit; x, y, z in mm are the first columns")
FEATURES = Tensor("FEATURES", "FP32", ("N", "F"), "the hits' features, each divided by its scale")
LABELS = Tensor("LABELS", "INT64", ("N",), "the track of each hit, numbered from 0; -1 for none")
COMPACT_HITS = Tensor("HITS_COMPACT", "UINT8", ("B",), "the hits in fewer bytes, instead of `HITS`")
COMPACT_LABELS = Tensor(
    "LABELS_COMPACT", "UINT8", ("B",), "the labels in fewer bytes, for who sent `HITS_COMPACT`"
)
PARAMETERS = Tensor(
    "PARAMETERS",
    "FP32",
    ("R", len(TRACK_COLUMNS)),
    "what is fitted of each track, in the order of their numbers",
)
WARNING = Tensor(
    "WARNING",
    "BYTES",
    (1,),
    "a sentence: why the features are hardly those of the bundle; absent from other answers",
)

ORDER = Tensor("ORDER", "INT64", ("N",), "the input row of each hit in canonical order")
SORTED = Tensor("SORTED_FEATURES", "FP32", ("N", "F"), "the features in canonical order")
EMBEDDING = Tensor("EMBEDDING", "FP32", ("N", "D"), "the hits in the space of the first network")
EDGES = Tensor("EDGES", "INT64", (2, "E"), "pairs of neighbours, from the inner to the outer hit")
FILTER_LOGITS = Tensor("FILTER_LOGITS", "FP32", ("E",), "the filter's logit of each pair")
PASSED_EDGES = Tensor("PASSED_EDGES", "INT64", (2, "P"), "the pairs that passed the filter")
KEPT_EDGES = Tensor("KEPT_EDGES", "INT64", (2, "K"), "those of them that are in a triplet")
TRIPLETS = Tensor("TRIPLETS", "INT64", (2, "T"), "the kept edges that may follow each other")
GNN_LOGITS = Tensor("GNN_LOGITS", "FP32", ("K",), "the graph neural network's logit of each edge")

TRACK_FINDING = Model(
    *("track_finding", (HITS,), (LABELS,), "hits in, tracks out"),
    on_request=(PARAMETERS,),
    compact=(COMPACT_HITS, COMPACT_LABELS),
)
EXATRKX = Model(
    *("exatrkx", (FEATURES,), (LABELS,), "the published Exa.TrkX service: scaled features"),
    warning=WARNING,
)
SERVED = (TRACK_FINDING, EXATRKX)
"""The models that clients call, in every deployment shape: they take a request or refuse it."""

HITS_TO_TRACKS = Model(
    *("hits_to_tracks", (HITS,), (LABELS,), "the ensemble of all stages"),
    on_request=(PARAMETERS,),
)
FEATURES_TO_TRACKS = Model(
    "features_to_tracks", (FEATURES,), (LABELS,), "the ensemble of the stages from `order` on"
)

STAGES = (
    Model("features", (HITS,), (FEATURES,), "hits to features"),
    Model("order", (FEATURES,), (SORTED, ORDER), "hits into canonical order"),
    Model("embedding", (SORTED,), (EMBEDDING,), "network 1"),
    Model("neighbours", (EMBEDDING, SORTED), (EDGES,), "algorithm 1"),
    Model("filter", (SORTED, EDGES), (FILTER_LOGITS,), "network 2"),
    Model(
        "cut", (SORTED, EDGES, FILTER_LOGITS), (PASSED_EDGES,), "drop what the filter scores low"
    ),
    Model("triplets", (SORTED, PASSED_EDGES), (KEPT_EDGES, TRIPLETS), "algorithm 2, network 3"),
    Model("gnn", (SORTED, KEPT_EDGES, TRIPLETS), (GNN_LOGITS,), "network 4"),
    Model(
        *("tracks", (SORTED, KEPT_EDGES, GNN_LOGITS, ORDER), (LABELS,), "algorithm 3"),
        on_request=(PARAMETERS,),
    ),
)
"""The stages in the order of the way of an event; scaled features enter at ``order``.

A bundle without a triplet classifier keeps every edge that passed the filter and has no triplets.
"""

ENSEMBLES = (HITS_TO_TRACKS, FEATURES_TO_TRACKS)
"""The chains of stages behind the served models in an ensemble."""

MODELS = {model.name: model for model in (*SERVED, *ENSEMBLES, *STAGES)}
"""The models of one bundle, by name."""


def split_name(name: str) -> tuple[str, str]:
    """Return a model's name without its bundle, and the bundle's, nothing for a server's first one."""
    model, _, bundle = name.partition(OF_BUNDLE)
    return model, bundle


def model_named(name: str) -> Model:
    """Return the model of a name, of whichever bundle; raises :class:`KeyError` for none of ours."""
    model, bundle = split_name(name)
    return MODELS[model].of(bundle)


UNUSABLE = "unusable input: "
"""Prefix of a stage's error for an unusable event; a served model removes it."""


def bundle_folder(bundle: str = "") -> Path:
    """Return where a model repository keeps its one copy of a bundle; Triton leaves such folders alone."""
    return Path(TRACK_FINDING.of(bundle).name, "bundle")
