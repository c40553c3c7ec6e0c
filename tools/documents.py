"""Generate the parts of the documentation that repeat code or results.

    python -m tools.documents          write them again
    pytest tests/docs                  fails if one differs

A generated part stands between ``<!-- made: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from studies.client.tables import ENCODINGS, FEEDING, SPENT
from studies.gpu.kernels import RESULT as COMPILED
from studies.gpu.model import RESULT as PREDICTED
from studies.gpu.tables import KERNELS, PREDICTION
from studies.markdown import markdown as table
from studies.physics.fitted import FITTED
from studies.physics.fitted import TABLES as FITS
from studies.physics.real_tables import REAL
from studies.physics.realism_tables import REALISM
from studies.physics.tables import TABLES
from studies.physics.throughput import RECORD as SCORED
from studies.physics.throughput import TABLES as SCORES
from studies.record import RESULTS, ROOT
from studies.reliability.tables import RELIABILITY
from studies.scaling.tables import SCALING
from studies.service.slurm import RESULT as SLURM
from studies.service.slurm import table as slurm_table
from studies.service.tables import SERVICE
from studies.speed.tables import SPEED, TECHNIQUES, processors, techniques_elsewhere
from trackserve.cli import build_parser
from trackserve.contract.metrics import METRICS
from trackserve.contract.tensors import SERVED, STAGES
from trackserve.evaluate.metrics import TARGET_SETS, UNITS, bin_edges
from trackserve.evaluate.report import DEFINITIONS
from trackserve.training.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trackserve.contract.tensors import Model, Tensor

FOUND = RESULTS / "real.json"
"""The shipped bundles on real and simulated events, as studies.physics.real measured them."""
PHYSICS = RESULTS / "physics.json"
"""The bundle hl-lhc as studies.physics measured it."""
LIKENESS = RESULTS / "realism.json"
"""Simulated events beside real ones, as studies.physics.realism compared them."""
STUDY = RESULTS / "service.json"
"""The service as studies.service measured it."""
CLIENT = RESULTS / "client.json"
"""What a client spends on an event, as studies.client measured it."""
FED = RESULTS / "feeding.json"
"""How many clients one server feeds, as studies.client.feeding measured it."""
BYTES = RESULTS / "encodings.json"
"""What compact encodings save and cost, as studies.client.encodings measured it."""
FAST = RESULTS / "speed.json"
"""The native engine as studies.speed measured it."""
ALSO = RESULTS / "speed-avx2.json"
"""The same on a processor with AVX2 only."""
STEPS = RESULTS / "techniques.json"
"""Gain and cost of each technique, as studies.speed.techniques measured them."""
STEPS_ALSO = RESULTS / "techniques-avx2.json"
"""The same on a processor with AVX2 only."""
PART = re.compile(r"(<!-- made: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Return the README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


# ---- the command line


def commands(
    parser: argparse.ArgumentParser, name: str = "trackserve"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command that can be run, with its parser."""
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in nested:
        for word, below in action.choices.items():
            yield from commands(below, f"{name} {word}")
    if not nested:
        yield name, parser


def command_reference() -> str:
    """Return a section for each command: purpose, arguments and options."""
    sections = []
    for name, parser in commands(build_parser()):
        actions = [action for action in parser._actions if action.dest != "help"]
        parts = [f"## {name}", parser.description or "", f"```\n{_usage(name, parser)}\n```"]
        rows = [_option(parser, action) for action in actions]
        if rows:
            parts.append(table([("argument or option", "default", "meaning"), *rows]))
        if parser.epilog:
            epilog = parser.epilog
            parts.append(f"```\n{epilog}\n```" if "\n" in epilog else epilog)
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the required arguments; the table has the optional ones."""
    needed = [a for a in parser._actions if not a.option_strings or a.required]
    given = [_names(parser, a, a.option_strings[:1]) for a in needed]
    optional = [a for a in parser._actions if a.option_strings and not a.required]
    return " ".join([name, *given, *(["[options]"] if len(optional) > 1 else [])])


def _names(parser: argparse.ArgumentParser, action: argparse.Action, options: Sequence[str]) -> str:
    metavar = action.metavar or (action.dest.upper() if options else action.dest)
    values = parser._get_formatter()._format_args(action, str(metavar))
    if isinstance(action.metavar, tuple):
        values = " ".join(action.metavar)
    return " ".join(filter(None, [", ".join(options), values]))


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str, str]:
    default = action.default
    if action.required and action.option_strings:
        shown = "required"
    elif default is None or default is False or default == []:
        shown = ""
    else:
        text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        shown = f"`{text}`"
    return f"`{_names(parser, action, action.option_strings)}`", shown, action.help or ""


# ---- the wire


def _tensor(tensor: Tensor) -> str:
    return f"`{tensor.name}` {tensor.dtype} [{', '.join(map(str, tensor.dims))}]"


def _alternatives(tensors: Sequence[Tensor], compact: Tensor | None) -> str:
    listed = ", ".join(map(_tensor, tensors))
    return listed if compact is None else f"{listed}, or {_tensor(compact)}"


def model_table(models: Sequence[Model]) -> str:
    """Return the inputs and outputs of each model."""
    rows = [
        (
            f"`{model.name}`",
            model.meaning,
            _alternatives(model.inputs, model.compact and model.compact[0]),
            _alternatives(model.outputs, model.compact and model.compact[1]),
            ", ".join(
                [*map(_tensor, model.on_request)]
                + ([f"{_tensor(model.warning)}, unasked"] if model.warning else [])
            ),
        )
        for model in models
    ]
    return table([("model", "what it does", "in", "out", "on request"), *rows])


def tensor_table() -> str:
    """Return every tensor once, with its meaning."""
    models = (*SERVED, *STAGES)
    tensors = dict.fromkeys(
        t for m in models for t in (*m.inputs, *(m.compact or ())[:1], *m.all_outputs)
    )
    rows = [
        (f"`{t.name}`", t.dtype, f"[{', '.join(map(str, t.dims))}]", t.meaning) for t in tensors
    ]
    return table([("tensor", "type", "shape", "meaning"), *rows])


def metric_table() -> str:
    """Return the pipeline's own metrics."""
    rows = [
        (f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.meaning)
        for m in METRICS
    ]
    return table([("metric", "kind", "labels", "meaning"), *rows])


# ---- the recipe of a training

RECIPE = {
    "name": "name of the bundle",
    "detector": "detector of the events",
    "seed": "seed of every random draw",
    "min_pt": "GeV; minimum pT of the targets",
    "start": "networks that start from the weights of the `--start` bundle",
    "like": "bundle of the same detector, by name or folder, whose `[fit]`, `[tracks]` (but for `method` and `min_hits`), `[budget]`, `[extent]` and `[second_pass]` are taken over; a folder counts from where the command is started; empty: none",
    "targets.max_radius": "mm; maximum production radius of targets; up to 2 mm only primaries count",
    "targets.hard_pt": "GeV; above this pT, edges are weighted by `hard_weight`",
    "targets.hard_weight": "weight of edges of particles above `hard_pt`",
    "targets.displaced_weight": "weight of edges of particles produced beyond 2 mm",
    "targets.short_hits": "maximum hits of a particle whose edges are weighted by `short_weight`",
    "targets.short_weight": "weight of edges of particles of up to `short_hits` hits",
    "long_edge": "mm; a true edge of length l has weight 1 + (l / `long_edge`)^2",
    "beam_spot": "mm; each update moves its event across the beam line, by this standard deviation along x and y",
    "precision": "precision of the finished bundle on the native engine: `float32`, `bfloat16` or `int8`",
    "triplet_cuts.kink": "in r and z, as `triplets.cuts` of the bundle",
    "triplet_cuts.off": "mm",
    "triplet_cuts.slope": "rad/mm",
    "triplet_cuts.dphi": "rad",
    "validation": "share of each data set for choosing radius, cuts and the quality of tracks",
    "test": "share of each data set for measuring the finished bundle",
    "features.columns": "columns of a hit; r, phi and z must be among them",
    "features.scales": "divisor of each column",
    "features.absent": "value of a column that a source lacks",
    "doublet_cuts.slope": "rad/mm; as `neighbours.cuts` of the bundle",
    "doublet_cuts.z0": "mm",
    "doublet_cuts.dphi": "rad",
    "doublet_cuts.dcot": "in the cotangent of the polar angle",
    "embedding.width": "units of a hidden layer",
    "embedding.layers": "hidden layers",
    "embedding.dimension": "dimensions of the embedding",
    "embedding.updates": "steps of the optimiser",
    "embedding.learning_rate": "peak learning rate",
    "embedding.queries": "hits per update whose neighbours that fail the doublet cuts are searched",
    "embedding.negatives": "maximum neighbours per hit in training",
    "embedding.pairs": "wrong neighbours that pass the doublet cuts, per update",
    "embedding.wedge": "share of the azimuth per update",
    "embedding.wrong_weight": "weight of a wrong neighbour relative to a true edge",
    "embedding.efficiency": "share of the target edges, weighted by length, within the chosen radius",
    "embedding.neighbour_limit": "maximum neighbours per hit in the bundle",
    "filter.width": "units of a hidden layer",
    "filter.layers": "hidden layers",
    "filter.updates": "steps of the optimiser",
    "filter.pruned": "units per hidden layer after pruning; 0: no pruning",
    "filter.pruned_updates": "further steps of the optimiser after pruning",
    "filter.learning_rate": "peak learning rate",
    "filter.events": "events whose candidate edges it trains on",
    "filter.edges": "wrong edges per update, beside all target edges",
    "filter.positive_weight": "weight of a target edge relative to a wrong one",
    "filter.efficiency": "share of the target edges, weighted by length, that the cut keeps",
    "filter.served_efficiency": "the same for the cut of the finished bundle",
    "triplets.width": "units of a hidden layer",
    "triplets.layers": "hidden layers",
    "triplets.updates": "steps of the optimiser",
    "triplets.pruned": "as `filter.pruned`",
    "triplets.pruned_updates": "further steps of the optimiser after pruning",
    "triplets.learning_rate": "peak learning rate",
    "triplets.events": "events whose triplets it trains on",
    "triplets.triplets": "wrong triplets per update, beside all target triplets",
    "triplets.efficiency": "share of the target triplets that the cut keeps",
    "triplets.served_efficiency": "the same for the cut of the finished bundle",
    "triplets.chain": "minimum edges of a chain; edges and triplets outside such chains are dropped",
    "gnn.width": "units of a hidden layer and of the states of edges and triplets",
    "gnn.steps": "steps of message passing",
    "gnn.updates": "steps of the optimiser",
    "gnn.learning_rate": "peak learning rate",
    "gnn.events": "events that it trains on, spread over all",
    "gnn.edges": "approximate edges per update, in a wedge of an event",
    "gnn.soft_weight": "weight of a true edge of a particle that is not a target",
    "tracks.method": "`components` or `walk`",
    "tracks.min_hits": "minimum hits of a track",
    "tracks.fakes": "maximum fake rate in each data set; without `like`",
    "tracks.cuts": "candidate cuts on the GNN's score; without `like`",
}
"""Every setting of a recipe in words."""


def settings(recipe: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and value of every setting of a recipe."""
    for field in fields(recipe):  # type: ignore[arg-type]
        value = getattr(recipe, field.name)
        if is_dataclass(value):
            yield from settings(value, f"{field.name}.")
        else:
            yield prefix + field.name, value


def recipe_table() -> str:
    """Return every setting with its value in the shipped recipe."""
    rows = [(f"`{k}`", f"`{_toml(v)}`", RECIPE[k]) for k, v in settings(read_recipe("hl-lhc"))]
    return table([("setting", "shipped recipe", "meaning"), *rows])


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


# ---- the metrics


def definition_table() -> str:
    """Return every term of an evaluation and what it means."""
    return table([("term", "definition"), *((f"`{k}`", v) for k, v in DEFINITIONS.items())])


def bin_table() -> str:
    """Return the variables that efficiencies are binned in."""
    rows = []
    for variable, unit in UNITS.items():
        edges = [bin_edges(variable, targets) for targets in TARGET_SETS]
        shown = "; ".join(
            f"{t.name} {len(e) - 1} from {e[0]:.4g} to {e[-1]:.4g}"
            for t, e in zip(TARGET_SETS, edges, strict=True)
        )
        rows.append((f"`{variable}`", unit or "-", shown))
    return table([("variable", "unit", "bins"), *rows])


# ---- what was measured


def measured(path: Path) -> dict[str, Any]:
    """Return what a benchmark wrote."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


MADE = {
    "commands": command_reference,
    "served-models": lambda: model_table(SERVED),
    "stage-models": lambda: model_table(STAGES),
    "tensors": tensor_table,
    "metrics": metric_table,
    "recipe": recipe_table,
    "definitions": definition_table,
    "bins": bin_table,
    **{name: partial(lambda make: make(measured(PHYSICS)), m) for name, m in TABLES.items()},
    **{name: partial(lambda make: make(measured(FOUND)), m) for name, m in REAL.items()},
    **{name: partial(lambda make: make(measured(SCORED)), m) for name, m in SCORES.items()},
    **{name: partial(lambda make: make(measured(LIKENESS)), m) for name, m in REALISM.items()},
    **{name: partial(lambda make: make(measured(STUDY)), m) for name, m in SERVICE.items()},
    **{
        name: partial(lambda file, make: make(measured(RESULTS / file)), *m)
        for name, m in {**RELIABILITY, **SCALING}.items()
    },
    **{name: partial(lambda make: make(measured(BYTES)), m) for name, m in ENCODINGS.items()},
    **{name: partial(lambda make: make(measured(FITTED)), m) for name, m in FITS.items()},
    **{name: partial(lambda make: make(measured(CLIENT)), m) for name, m in SPENT.items()},
    **{name: partial(lambda make: make(measured(FED)), m) for name, m in FEEDING.items()},
    **{name: partial(lambda make: make(measured(FAST)), m) for name, m in SPEED.items()},
    **{name: partial(lambda make: make(measured(STEPS)), m) for name, m in TECHNIQUES.items()},
    **{name: partial(lambda make: make(measured(COMPILED)), m) for name, m in KERNELS.items()},
    **{name: partial(lambda make: make(measured(PREDICTED)), m) for name, m in PREDICTION.items()},
    "slurm": lambda: slurm_table(measured(SLURM)),
    "speed-techniques-processors": lambda: techniques_elsewhere(
        [measured(STEPS), measured(STEPS_ALSO)]
    ),
    "speed-processors": lambda: processors([measured(FAST), measured(ALSO)]),
}


def refreshed(text: str) -> str:
    """Return a document with its generated parts refreshed."""
    return PART.sub(lambda m: f"{m[1]}\n{MADE[m['name']]()}\n\n{m[3]}", text)


if __name__ == "__main__":
    for path in documents():
        before = path.read_text(encoding="utf-8")
        if (after := refreshed(before)) != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
