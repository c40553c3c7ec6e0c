"""``trackserve bundle adopt``: a bundle of ONNX networks from another training."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackserve.cli.options import Formatter, find_sources
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from trackserve.bundle import Bundle
    from trackserve.cli.options import Subparsers

TEXT = "Make a bundle of ONNX networks from another training: other input names, src and dst, both directions, scores."


def add(actions: Subparsers) -> None:
    """Add the action to ``trackserve bundle``."""
    parser = actions.add_parser(
        "adopt",
        help=TEXT,
        description=TEXT,
        formatter_class=Formatter,
        epilog="""example:
  trackserve bundle adopt embed.onnx filter.onnx gnn.onnx --columns r phi z --scales 1000 3.14159 1000 \\
    --radius 0.1 --filter-cut 0.05 --track-cut 0.5 --both-directions gnn --events events/ -o my-bundle""",
    )
    parser.set_defaults(run=run)
    for name in ("embedding", "filter", "gnn"):
        parser.add_argument(name, type=Path, metavar=name.upper(), help="ONNX file")
    parser.add_argument(
        "--columns", nargs="+", required=True, metavar="COLUMN", help="the features, in their order"
    )
    parser.add_argument(
        "--scales", nargs="+", type=float, required=True, help="each feature's divisor in training"
    )
    parser.add_argument("--radius", type=float, required=True, help="of the neighbour search")
    parser.add_argument("--limit", type=int, default=100, help="most neighbours of a hit")
    parser.add_argument("--filter-cut", type=float, required=True, help="on the filter's score")
    parser.add_argument("--track-cut", type=float, required=True, help="on the GNN's score")
    parser.add_argument("--min-hits", type=int, default=3, help="of a track")
    edges = ("filter", "gnn")
    parser.add_argument(
        "--both-directions",
        nargs="+",
        choices=edges,
        default=[],
        help="networks trained on each edge in both directions",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        choices=edges,
        default=[],
        help="networks that return scores, not logits (a sigmoid at the end is found without this)",
    )
    parser.add_argument("--detector", default="trackml", help="name of the detector")
    parser.add_argument("--name", help="the bundle's name (default: its folder's)")
    parser.add_argument(
        "--events", type=Path, nargs="+", metavar="EVENT", help="check scales and networks on these"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="new folder for the bundle"
    )


def run(options: argparse.Namespace) -> None:
    """Adopt the networks, check them, and print what was changed and what is slow."""
    from trackserve.bundle import read_bundle
    from trackserve.bundle.foreign import EdgeNetwork, adopt_network, slow_networks_text
    from trackserve.pipeline.check import check_answers

    if options.output.exists():
        message = f"{options.output} exists already; choose another folder, or remove it first"
        raise InputError(message)
    if len(options.columns) != len(options.scales):
        message = (
            f"{len(options.scales)} scales for {len(options.columns)} columns; expected one each"
        )
        raise InputError(message)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=".adopt-") as beside:
        folder = Path(beside) / "bundle"
        folder.mkdir()
        for name in ("embedding", "filter", "gnn"):
            form = EdgeNetwork(name in options.both_directions, name in options.scores or None)
            changes = adopt_network(
                getattr(options, name),
                folder / f"{name}.onnx",
                width=len(options.columns),
                form=None if name == "embedding" else form,
            )
            print(f"{name}: {'; '.join(changes) or 'taken as it is'}")
        bundle = _describe(folder, options)
        check_answers(bundle)
        if options.events:
            _check_on_events(bundle, options.events)
        folder.rename(options.output)
    bundle = read_bundle(options.output)
    if slow := slow_networks_text(bundle):
        print(f"slow: {slow}")
    print(f"{bundle.path}: valid, digest {bundle.digest()}")


def _describe(folder: Path, options: argparse.Namespace) -> Bundle:
    """Write bundle.toml, and read the bundle."""
    from trackserve.bundle import BUNDLE_FILE, FORMAT, read_bundle
    from trackserve.bundle.foreign import embedding_dimension
    from trackserve.files import write_text

    tables: dict[str, dict[str, Any]] = {
        "features": {"columns": options.columns, "scales": options.scales},
        "embedding": {
            "dimension": embedding_dimension(folder / "embedding.onnx", len(options.columns))
        },
        "neighbours": {"radius": options.radius, "limit": options.limit},
        "filter": {"cut": options.filter_cut},
        "tracks": {"method": "components", "cut": options.track_cut, "min_hits": options.min_hits},
        "provenance": {
            "adopted": [str(getattr(options, n).name) for n in ("embedding", "filter", "gnn")]
        },
    }
    lines = [f"format = {FORMAT}", f"name = {_toml(options.name or options.output.name)}"]
    lines.append(f"detector = {_toml(options.detector)}")
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    write_text(folder / BUNDLE_FILE, "\n".join(lines) + "\n")
    return read_bundle(folder)


def _toml(value: object) -> str:
    """Return a text, number or list of them as TOML has it, which is as JSON has it."""
    return json.dumps(value)


def _check_on_events(bundle: Bundle, paths: Sequence[Path]) -> None:
    """Print the range of each feature in events, and what is left of true edges after each stage."""
    import numpy as np

    from trackserve.bundle.foreign import check_scales
    from trackserve.engines.registry import open_pipeline
    from trackserve.evaluate.report import evaluate, with_stages
    from trackserve.pipeline.features import hit_features

    sources, taken = find_sources(paths), bundle.features.wire_columns
    hits = [source.read_columns(taken, truth=False).hits for source in sources]
    scales = list(bundle.features.scales)
    every = np.concatenate([hit_features(each, bundle.features) for each in hits])
    lowest, highest = (x * np.array(scales) for x in (every.min(axis=0), every.max(axis=0)))
    columns = list(bundle.features.columns)
    for line in check_scales(scales, columns, lowest.tolist(), highest.tolist()):
        print(f"  {line}")
    try:
        events = [source.read_columns(taken) for source in sources]
    except InputError as error:
        print(f"  not evaluated: {error}")
        return
    pipeline = open_pipeline(bundle, engine="reference")
    print(evaluate(events, with_stages(pipeline)).table())
