"""What to train and how: a TOML file, read into one frozen dataclass a stage."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from trackserve.errors import BundleError, InputError
from trackserve.event import Clusters
from trackserve.pipeline.features import FeatureColumns
from trackserve.pipeline.neighbours import DoubletCuts
from trackserve.pipeline.triplets import TripletCuts

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_BASE = "hl-lhc"
"""What a recipe inherits from unless it names another."""
NOTHING = "none"
"""The base of a recipe that inherits nothing."""


@dataclass(frozen=True)
class TargetsRecipe:
    """Which charged particles are targets of the training besides ``min_pt``, and what they count.

    Targets are produced within ``max_radius`` (mm) of the beam line, and primary where that is at most
    2 mm. An edge counts ``hard_weight`` times if its particle is above ``hard_pt`` (GeV),
    ``displaced_weight`` times if it was produced farther than 2 mm, and ``short_weight`` times if it
    made at most ``short_hits`` hits: such a particle is lost with any of its edges.
    """

    max_radius: float = 2.0
    hard_pt: float = 0.9
    hard_weight: float = 1.0
    displaced_weight: float = 1.0
    short_hits: int = 5
    short_weight: float = 1.0


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How the embedding is trained and the radius chosen.

    An update looks up the nearest ``negatives`` of the hits in a ``wedge`` of an event (its share of
    the full azimuth) in the embedding as it is then. Hard negatives are ``pairs`` of those that pass
    the doublet cuts and, of ``queries`` hits, those that fail. ``wrong_weight`` weighs one wrong
    neighbour of a hit against one true edge. The radius is where ``efficiency`` of the target edges
    are linked.
    """

    width: int = 96
    layers: int = 3
    dimension: int = 8
    updates: int = 1500
    learning_rate: float = 4e-3
    queries: int = 200
    negatives: int = 500
    pairs: int = 100_000
    wedge: float = 0.25
    wrong_weight: float = 0.004
    efficiency: float = 0.999
    neighbour_limit: int = 1000


@dataclass(frozen=True)
class FilterRecipe:
    """How the filter is trained; its cut keeps ``efficiency`` of the target edges that it is given.

    The finished bundle's cut keeps ``served_efficiency``.
    It learns on the candidate edges of ``events`` events: all target edges of one at each update, and
    a random ``edges`` of the others. Then it is pruned to the width ``pruned``, unless that is 0, and
    learns for ``pruned_updates`` more.
    """

    width: int = 32
    layers: int = 3
    updates: int = 1200
    pruned: int = 0
    pruned_updates: int = 2400
    learning_rate: float = 5e-3
    events: int = 30
    edges: int = 150_000
    positive_weight: float = 10.0
    efficiency: float = 0.997
    served_efficiency: float = 0.9985


@dataclass(frozen=True)
class TripletsRecipe:
    """How the triplet classifier is trained; its cut keeps ``efficiency`` of the target triplets.

    The finished bundle's cut keeps ``served_efficiency``, and drops what no chain of ``chain`` edges
    runs through.
    It learns on ``events`` events: all target triplets of one at each update, and ``triplets`` of the
    others, drawn at random. It is pruned as the filter is.
    """

    width: int = 32
    layers: int = 2
    updates: int = 1200
    pruned: int = 0
    pruned_updates: int = 2400
    learning_rate: float = 5e-3
    events: int = 30
    triplets: int = 40_000
    efficiency: float = 0.995
    served_efficiency: float = 0.9975
    chain: int = 5


@dataclass(frozen=True)
class GnnRecipe:
    """How the GNN is trained.

    It learns on ``events`` events, spread over all. An update takes a wedge of one with about ``edges``
    edges: more steps in the same time, of which each moves less memory. ``soft_weight`` weighs true edges of particles that are no targets.
    """

    width: int = 32
    steps: int = 4
    updates: int = 3400
    learning_rate: float = 2.5e-3
    events: int = 100
    edges: int = 60_000
    soft_weight: float = 0.3


@dataclass(frozen=True)
class TracksRecipe:
    """How tracks are built; of ``cuts`` on scores, the best with at most ``fakes`` of the tracks fake.

    The cut is not chosen where the recipe's ``like`` names a bundle: it has one that goes with its fit.
    """

    method: Literal["components", "walk"] = "walk"
    min_hits: int = 6
    fakes: float = 0.005
    cuts: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides its data.

    ``min_pt`` (GeV) is the momentum above which particles are targets of the training. An edge of the
    length ``long_edge`` (mm) counts twice as much as a short one, one of twice the length five times.
    Each update moves the beam spot of its event by ``beam_spot`` (mm, one standard deviation along x and y).
    ``precision`` is what the native engine computes the finished bundle in.
    ``validation`` and ``test`` are shares of the events of each data set, at least one event.
    The networks named in ``start`` begin at the weights of the bundle that a training is given to start
    from, where it is given one. ``like`` names a bundle of the same detector whose fit, tracks, budget and
    second pass the new one takes over: they were chosen by hand.
    """

    name: str = "trackml"
    detector: str = "trackml"
    seed: int = 1
    min_pt: float = 0.9
    long_edge: float = 150.0
    beam_spot: float = 0.0
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    validation: float = 0.05
    test: float = 0.05
    start: tuple[str, ...] = ("embedding", "filter", "triplets", "gnn")
    like: str = ""
    features: FeatureColumns = field(
        default_factory=lambda: FeatureColumns(
            ("r", "phi", "z"), (1000.0, 3.141592653589793, 1000.0), {}
        )
    )
    targets: TargetsRecipe = field(default_factory=TargetsRecipe)
    doublet_cuts: DoubletCuts = field(default_factory=DoubletCuts)
    embedding: EmbeddingRecipe = field(default_factory=EmbeddingRecipe)
    triplet_cuts: TripletCuts = field(default_factory=TripletCuts)
    filter: FilterRecipe = field(default_factory=FilterRecipe)
    triplets: TripletsRecipe = field(default_factory=TripletsRecipe)
    gnn: GnnRecipe = field(default_factory=GnnRecipe)
    tracks: TracksRecipe = field(default_factory=TracksRecipe)

    def __post_init__(self) -> None:
        # Training turns and mirrors events, which these columns follow and others wouldn't.
        columns = set(self.features.columns)
        allowed = {"r", "phi", "z", *(f.name for f in fields(Clusters))}
        if not {"r", "phi", "z"} <= columns <= allowed:
            message = (
                f"features are {', '.join(self.features.columns)}; expected r, phi, z and, beside "
                f"them, only {', '.join(f.name for f in fields(Clusters))}"
            )
            raise InputError(message)
        _check_range(self)


def _check_range(settings: Any) -> None:
    """Raise :class:`InputError` for a number that no training can use."""
    for name, value in vars(settings).items():
        if is_dataclass(value) and not isinstance(
            value, (FeatureColumns, DoubletCuts, TripletCuts)
        ):
            _check_range(value)
        elif name in {"validation", "test", "efficiency"} and not 0 < value < 1:
            message = f"{name} is {value}; expected a share between 0 and 1"
            raise InputError(message)
        elif type(value) in {int, float} and name != "seed" and not 0 <= value < float("inf"):
            message = f"{name} is {value}; expected a finite number, not below 0"
            raise InputError(message)
        elif type(value) is int and name not in {"seed", "layers", "steps", "pruned"} and value < 1:
            message = f"{name} is {value}; expected at least 1"
            raise InputError(message)
        elif name == "pruned" and value > settings.width:
            message = f"pruned is {value}; expected at most the width, {settings.width}"
            raise InputError(message)


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe: the name of one that comes with the package, or a TOML file.

    A file inherits every setting that it does not have from the recipe that its key ``base`` names,
    ``hl-lhc`` where it has no such key, and from the defaults alone where that is ``none``. Raises
    :class:`InputError` that names the setting that is unknown or of the wrong type.
    """
    path, settings = _read(recipe)
    base = _base_of(path, settings)
    if base is not None:
        settings = _over(_read(base)[1], settings)
    made: Recipe = _make(Recipe, settings, str(path))
    return made


def recipe_changes(recipe: str | Path) -> tuple[str | None, list[str]]:
    """Return the name of a recipe's base and what the recipe changes of it, such as ``gnn.width 64 (32)``.

    The name is None, and nothing is changed, for a recipe that inherits nothing.
    """
    path, settings = _read(recipe)
    base = _base_of(path, settings)
    if base is None:
        return None, []
    before, after = _settings(read_recipe(base)), _settings(read_recipe(recipe))
    changes = [
        f"{name} {_shown(after[name])} ({_shown(before[name])})"
        for name in after
        if after[name] != before[name]
    ]
    return base, changes


def _read(recipe: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of a recipe and what is in it."""
    path = Path(recipe)
    shipped = RECIPES / f"{recipe}.toml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        message = f"no recipe {str(recipe)!r}; give a TOML file or one of: {known}"
        raise InputError(message)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not valid TOML: {error}"
        raise InputError(message) from None


def _base_of(path: Path, settings: dict[str, Any]) -> str | None:
    """Take the key ``base`` out of a recipe's settings and return what it names."""
    base = settings.pop("base", NOTHING if path.parent == RECIPES else DEFAULT_BASE)
    known = sorted(p.stem for p in RECIPES.glob("*.toml"))
    if base not in (NOTHING, *known):
        message = f"{path}: base is {base!r}; expected {NOTHING!r} or one of: {', '.join(known)}"
        raise InputError(message)
    return None if base == NOTHING else base


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return the settings ``below`` with those ``above`` in their place, table by table."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        merged[name] = _over(below[name], value) if both else value
    return merged


def _settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return every setting of a recipe by its name with dots."""
    found: dict[str, Any] = {}
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        name = prefix + setting.name
        found.update(_settings(value, f"{name}.") if is_dataclass(value) else {name: value})
    return found


def _shown(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _make(kind: type, settings: Any, where: str) -> Any:
    """Make the dataclass ``kind`` from a TOML table, by the names and types of its fields."""
    if not isinstance(settings, dict):
        message = f"{where} is {settings!r}; expected a table"
        raise InputError(message)
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    values: dict[str, Any] = {"absent": {}} if kind is FeatureColumns else {}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            message = f"{where}: unknown setting {name!r}{hint}"
            raise InputError(message)
        if is_dataclass(hints[name]):
            values[name] = _make(hints[name], value, f"{where} [{name}]")
        else:
            values[name] = _value(hints[name], value, f"{where}: {name}")
    try:
        return kind(**values)
    except TypeError as error:
        message = f"{where}: {str(error).partition(') ')[2] or error}"
        raise InputError(message) from None
    except (InputError, BundleError) as error:
        message = f"{where}: {error}"
        raise InputError(message) from None


def _value(hint: Any, value: Any, what: str) -> Any:
    """Return a value of TOML as the type that a field has."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is tuple and isinstance(value, list) and value:
        return tuple(_value(inner[0], v, what) for v in value)
    if kind is Mapping and isinstance(value, dict):
        return {k: _value(inner[1], v, what) for k, v in value.items()}
    if kind is Literal and value in inner:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    expected = {tuple: "a list", Mapping: "a table", Literal: " or ".join(map(repr, inner))}
    message = f"{what} is {value!r}; expected {expected.get(kind) or hint.__name__}"
    raise InputError(message)
