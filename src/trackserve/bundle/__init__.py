"""The bundle: a folder with everything that turns hits into tracks.

``bundle.toml`` names the features, the graph's settings, the cuts, the track builder and where it
all came from; ``embedding.onnx``, ``filter.onnx`` and ``gnn.onnx`` are the networks, and
``triplets.onnx`` where ``bundle.toml`` has ``[triplets]``: the GNN then takes triplets, too. Nothing in
it is executable, so a bundle from a stranger can be read safely.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.bundle.budget import event_budget
from trackserve.bundle.fitting import fit_settings, quality_model
from trackserve.bundle.second_pass import SECOND_PASS, second_description
from trackserve.contract.description import PRECISIONS
from trackserve.errors import BundleError, InputError, needs_extra
from trackserve.pipeline.budget import Budget, Extent
from trackserve.pipeline.components import TrackBuilder
from trackserve.pipeline.features import FeatureColumns, check_finite, cylindrical
from trackserve.pipeline.fit import FEWEST_HITS
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.pipeline.scales import out_of_scale
from trackserve.pipeline.tracks import TrackStage
from trackserve.pipeline.triplets import TripletCuts, TripletSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trackserve.event import Float32
    from trackserve.pipeline.fit import FitSettings
    from trackserve.pipeline.quality import QualityModel

FORMAT = 1
"""Version of the bundle's layout."""
BUNDLE_FILE = "bundle.toml"
NETWORKS = ("embedding", "filter", "gnn")
MAX_MEMBER_BYTES = 256 * 2**20
"""A network larger than this is refused: something other than a tracking network was put there."""
MAX_DESCRIPTION_BYTES = 2**20
"""A description larger than this is refused before it is parsed."""
LARGEST = 2**31 - 1
"""Whole numbers of a bundle fit in 32 bits: compiled engines count in them."""
SHIPPED = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True)
class Bundle:
    """A bundle as read from its folder, checked.

    ``radius`` and ``neighbour_limit`` bound the neighbour search in the embedding of
    ``embedding_dimension`` dimensions; ``filter_cut`` is the least filter score that an edge needs,
    in [0, 1]; ``fit`` and ``quality`` exist if tracks can be fitted; ``budget`` bounds an event;
    ``provenance`` holds data, seeds, versions and the physics measured after training. ``second_pass``
    is the same bundle with other cuts, for the hits that are then on no track.
    """

    path: Path
    name: str
    detector: str
    features: FeatureColumns
    embedding_dimension: int
    radius: float
    neighbour_limit: int
    doublet_cuts: DoubletCuts
    filter_cut: float
    triplets: TripletSettings | None
    track_builder: TrackBuilder
    precision: str
    provenance: Mapping[str, Any]
    fit: FitSettings | None = None
    quality: QualityModel | None = None
    budget: Budget = field(default_factory=Budget)
    second_pass: Bundle | None = None

    def __post_init__(self) -> None:
        builder = self.track_builder
        if builder.fits and (self.fit is None or builder.min_hits < FEWEST_HITS):
            message = (
                f"tracks.join is {builder.join:g}, tracks.min_quality {builder.min_quality:g} and "
                f"tracks.extend {builder.extend:g}, with tracks.min_hits {builder.min_hits}; they need "
                f"[fit] and at least {FEWEST_HITS} hits"
            )
            raise BundleError(message)
        if builder.min_quality > 0 and self.quality is None:
            message = f"tracks.min_quality is {builder.min_quality:g}; that needs [quality]"
            raise BundleError(message)
        if min(self.embedding_dimension, self.neighbour_limit) < 1:
            message = (
                f"embedding dimension {self.embedding_dimension}, neighbour limit "
                f"{self.neighbour_limit}; expected at least 1"
            )
            raise BundleError(message)
        if not 0 < self.radius < LARGEST or not 0 < self.filter_cut < 1:
            message = (
                f"radius {self.radius}, filter cut {self.filter_cut}; expected a positive radius "
                "and a cut between 0 and 1"
            )
            raise BundleError(message)
        if self.precision not in PRECISIONS:
            message = f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
            raise BundleError(message)

    @property
    def track_stage(self) -> TrackStage:
        """What the last stage needs."""
        return TrackStage(self.features, self.track_builder, self.fit, self.quality)

    @property
    def first_pass(self) -> Bundle:
        """The bundle without its second pass."""
        return replace(self, second_pass=None)

    @property
    def min_quality(self) -> float:
        """The least quality of a track: where there are two passes, that of the second."""
        return (self.second_pass or self).track_builder.min_quality

    @property
    def embedding_path(self) -> Path:
        """The network that embeds hits."""
        return self.path / "embedding.onnx"

    @property
    def filter_path(self) -> Path:
        """The network that filters pairs."""
        return self.path / "filter.onnx"

    @property
    def triplets_path(self) -> Path:
        """The network that filters triplets, where the bundle has one."""
        return self.path / "triplets.onnx"

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its networks, in the order of the way of an event."""
        return NETWORKS if self.triplets is None else ("embedding", "filter", "triplets", "gnn")

    @property
    def gnn_path(self) -> Path:
        """The network that scores edges."""
        return self.path / "gnn.onnx"

    def digest(self) -> str:
        """Return twelve hexadecimal digits that name the contents: equal digits, equal answers on one engine."""
        content = hashlib.sha256()
        for member in (BUNDLE_FILE, *(f"{name}.onnx" for name in self.networks)):
            content.update((self.path / member).read_bytes())
        return content.hexdigest()[:12]

    def with_budget(self, changes: Mapping[str, float | str]) -> Bundle:
        """Return the bundle with other bounds of an event; raises :class:`BundleError` for one unknown."""
        second = None if self.second_pass is None else self.second_pass.with_budget(changes)
        return replace(self, budget=self.budget.changed(changes), second_pass=second)

    def check_features(self, features: Float32) -> None:
        """Raise :class:`InputError` unless features are finite float32 ``[N, F]`` of this bundle.

        Raises :class:`BudgetError`, one of those, for hits that this bundle's budget doesn't allow.
        """
        width = len(self.features.columns)
        if features.ndim != 2 or features.shape[1] != width or features.dtype != np.float32:
            message = (
                f"features are {features.dtype} {list(features.shape)}; expected float32 of shape "
                f"[N, {width}]: {', '.join(self.features.columns)}, scaled"
            )
            raise InputError(message)
        check_finite(features, self.features.columns)
        with np.errstate(over="ignore"):  # an infinite distance is outside of any detector
            self.budget.check(*cylindrical(features, self.features))

    def out_of_scale(self, features: Float32) -> str | None:
        """Return in one sentence why checked features ``[N, F]`` are hardly this bundle's, None if they may be."""
        return out_of_scale(features, self.features, extent_known=self.budget.extent.known)

    def doubt(self, features: Float32) -> str | None:
        """Return what :meth:`out_of_scale` does, or in one sentence why the hits lie outside of the detector.

        Such hits are refused before, unless the budget's ``outside`` is ``warn``.
        """
        with np.errstate(over="ignore"):
            r, _, z = cylindrical(features, self.features)
        return self.out_of_scale(features) or self.budget.misplaced(r, z)


def shipped_bundles() -> list[Path]:
    """Return the folders of the bundles that come with the package."""
    return sorted(description.parent for description in SHIPPED.glob(f"*/{BUNDLE_FILE}"))


def shipped_bundle(name: str = "trackml") -> Path:
    """Return the folder of a bundle that comes with the package."""
    path = SHIPPED / name
    if path not in shipped_bundles():
        found = ", ".join(folder.name for folder in shipped_bundles()) or "none"
        message = f"no bundle named {name!r} comes with this package; there is: {found}"
        raise BundleError(message)
    return path


def read_bundle(
    path: Path | str | None = None, *, networks: Collection[str] | None = None
) -> Bundle:
    """Read and check a bundle: a folder, or the name of one that ships; by default ``trackml``.

    A folder of that name goes first. ``networks`` are those to check, all if None. Raises
    :class:`BundleError` that names the file, what was found and what was expected.
    """
    folder = Path(path) if path is not None else shipped_bundle()
    shipped = SHIPPED / folder.name
    if not folder.exists() and len(folder.parts) == 1 and shipped in shipped_bundles():
        folder = shipped
    description = _read_description(folder)
    try:
        bundle = _from_description(folder, description)
    except BundleError as error:
        message = f"{folder / BUNDLE_FILE}: {error}"
        raise BundleError(message) from None
    if bundle.triplets is not None and not bundle.triplets_path.is_file():
        message = f"{bundle.triplets_path} is missing; {BUNDLE_FILE} has [triplets], which needs it"
        raise BundleError(message)
    for network in bundle.networks:
        if networks is None or network in networks:
            _check_network(bundle, network)
    return bundle


def _check_network(bundle: Bundle, network: str) -> None:
    with needs_extra("engines", "checking a bundle's networks"):
        from trackserve.bundle.networks import check_network  # noqa: PLC0415 - imports onnx
    check_network(bundle, network)


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        message = (
            f"{folder} is not a folder; a bundle is a folder with {BUNDLE_FILE} and four networks, or "
            f"the name of one that ships: {', '.join(path.name for path in shipped_bundles())}"
        )
        raise BundleError(message)
    for member in (BUNDLE_FILE, *(f"{name}.onnx" for name in NETWORKS)):
        path = folder / member
        if not path.is_file():
            message = f"{path} is missing; a bundle has {BUNDLE_FILE}, embedding.onnx, filter.onnx and gnn.onnx"
            raise BundleError(message)
    for path in folder.glob("*.onnx"):
        if path.stat().st_size > MAX_MEMBER_BYTES:
            message = (
                f"{path} has {path.stat().st_size:,} bytes; expected at most {MAX_MEMBER_BYTES:,}"
            )
            raise BundleError(message)
    if (size := (folder / BUNDLE_FILE).stat().st_size) > MAX_DESCRIPTION_BYTES:
        message = (
            f"{folder / BUNDLE_FILE} has {size:,} bytes; expected at most {MAX_DESCRIPTION_BYTES:,}"
        )
        raise BundleError(message)
    try:
        return tomllib.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{folder / BUNDLE_FILE} is not valid TOML: {error}"
        raise BundleError(message) from None
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is the latter
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = f"{folder / BUNDLE_FILE} cannot be read: {reason}"
        raise BundleError(message) from None


class _Values:
    """The values of a parsed description, each looked up with its type."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._description = description
        self._known: set[str] = set()

    def get(self, key: str, kind: type | tuple[type, ...], default: object = None) -> Any:
        """Return the value of a key such as ``tracks.cut``; raise :class:`BundleError` for another type."""
        self._known.add(key)
        table: Any = self._description
        for part in key.split("."):
            table = table.get(part) if isinstance(table, dict) else None
        if table is None and default is not None:
            return default
        if not isinstance(table, kind) or isinstance(table, bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            found = "missing" if table is None else repr(table)
            message = f"{key} is {found}; expected {' or '.join(k.__name__ for k in kinds)}"
            raise BundleError(message)
        if isinstance(table, int) and not -LARGEST <= table <= LARGEST:
            message = f"{key} is {table:.6g}; expected a number of at most {LARGEST:,}"
            raise BundleError(message)
        return table

    def number(self, key: str, default: float | None = None) -> float:
        """Return a value as a float."""
        return float(self.get(key, (int, float), default))

    def numbers(self, table: str, defaults: object) -> dict[str, float]:
        """Return the numbers of a table, as the fields of ``defaults``, which are taken where one is absent."""
        return {name: self.number(f"{table}.{name}", old) for name, old in vars(defaults).items()}

    def refuse_unknown(self) -> None:
        """Raise :class:`BundleError` for a key that was never looked up."""
        if unknown := sorted(_keys(self._description, self._known) - self._known):
            near = difflib.get_close_matches(unknown[0], self._known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{unknown[0]} is not a setting of a bundle{hint}"
            raise BundleError(message)


def _features(values: _Values) -> FeatureColumns:
    try:
        return FeatureColumns(
            columns=tuple(values.get("features.columns", list)),
            scales=tuple(float(s) for s in values.get("features.scales", list)),
            absent={k: float(v) for k, v in values.get("features.absent", dict, {}).items()},
        )
    except (TypeError, ValueError) as error:
        raise (
            error if isinstance(error, BundleError) else BundleError(f"features: {error}")
        ) from None


def _triplets(values: _Values) -> TripletSettings:
    return TripletSettings(
        cuts=TripletCuts(**values.numbers("triplets.cuts", TripletCuts())),
        cut=values.number("triplets.cut"),
        chain=int(values.get("triplets.chain", int, 2)),
    )


def _from_description(folder: Path, description: dict[str, Any]) -> Bundle:
    """Make the bundle from its parsed description."""
    values = _Values(description)
    get = values.get
    if (version := get("format", int)) != FORMAT:
        message = f"format is {version}; this version of trackserve reads format {FORMAT}"
        raise BundleError(message)
    bundle = Bundle(
        path=folder,
        features=_features(values),
        triplets=_triplets(values) if "triplets" in description else None,
        name=get("name", str),
        detector=get("detector", str),
        embedding_dimension=get("embedding.dimension", int),
        radius=values.number("neighbours.radius"),
        neighbour_limit=get("neighbours.limit", int),
        doublet_cuts=DoubletCuts(**values.numbers("neighbours.cuts", DoubletCuts())),
        filter_cut=values.number("filter.cut"),
        track_builder=TrackBuilder(
            method=get("tracks.method", str),
            cut=values.number("tracks.cut"),
            min_hits=get("tracks.min_hits", int, 3),
            join=values.number("tracks.join", 0.0),
            min_quality=values.number("tracks.min_quality", 0.0),
            extend=values.number("tracks.extend", 0.0),
        ),
        precision=get("precision", str, "float32"),
        provenance=get("provenance", dict, {}),
        fit=fit_settings(get("fit", dict, {})),
        quality=quality_model(get("quality", dict, {})),
        budget=event_budget(get("extent", dict, {}), get("budget", dict, {}), get("detector", str)),
        second_pass=_second_pass(folder, description),
    )
    get("second_pass", dict, {})
    values.refuse_unknown()
    return bundle


def _second_pass(folder: Path, description: dict[str, Any]) -> Bundle | None:
    if (changed := second_description(description)) is None:
        return None
    try:
        second = _from_description(folder, changed)
    except BundleError as error:
        message = f"in {SECOND_PASS}, {error}"
        raise BundleError(message) from None
    # Where hits lie was checked before the first pass; those left over need not be spread alike.
    return replace(second, budget=replace(second.budget, extent=Extent()))


def _keys(table: Mapping[str, Any], known: set[str], prefix: str = "") -> set[str]:
    """Return the dotted names of a table's settings; one that is known is not looked into."""
    found: set[str] = set()
    for name, value in table.items():
        key = prefix + name
        inside = isinstance(value, dict) and key not in known
        found |= _keys(value, known, f"{key}.") if inside else {key}
    return found
