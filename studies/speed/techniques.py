"""What each technique gives in time and costs in physics, alone and together: a table of docs/speed.md.

    python -m studies.speed.techniques --events DIR --training DIR [--bundle DIR] [--work DIR] [--quick]

Every variant is a bundle made from the shipped one: other settings, another engine or precision, a
network as it was before it was pruned, or a shallower GNN. That learns to answer as the shipped one
does, on the events in --training and without their truth. Times are processor seconds on one thread, variants alternating;
the physics is that of unseen events, the same for each variant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from studies.clock import medians, stage_seconds
from studies.physics.judge import BundleFinder, Job, judge
from studies.record import RESULTS, installation, write_json
from studies.speed.tables import TECHNIQUES
from trackserve.bundle import read_bundle
from trackserve.data import find_events
from trackserve.engines.native import NativePipeline, library
from trackserve.engines.registry import open_pipeline
from trackserve.event import TripletGraph
from trackserve.pipeline.features import hit_features
from trackserve.pipeline.networks import METADATA
from trackserve.training.calibrate import calibrate
from trackserve.training.export import export_network, write_description
from trackserve.training.fit import fit
from trackserve.training.gnn import among
from trackserve.training.networks import Gnn
from trackserve.training.samples import turned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from trackserve.bundle import Bundle
    from trackserve.data import EventSource
    from trackserve.evaluate.intervals import Ratio
    from trackserve.event import Float32, Int64
    from trackserve.pipeline.stages import StageOutputs

RESULT = RESULTS / "techniques.json"
UNPRUNED = Path(__file__).with_name("unpruned")
"""The shipped networks as they were before they were pruned."""
UNPRUNED_CUTS = {"filter": 0.067983582208222, "triplets": 0.2964884402345186}
"""Their cuts, which keep the same shares of the targets as those of the pruned networks. Both are of the training of
``hl-lhc``: ``filter.checkpoint`` and ``triplets.checkpoint``, and have to be taken again where it is trained again."""
BASE = "float32"
STEPS = 3
EDGES_OF_AN_UPDATE = 60_000
LEARNING_RATE = 4e-3


@dataclass(frozen=True)
class Variant:
    """A bundle on an engine. A slow one is timed and judged on few events."""

    name: str
    bundle: Path
    engine: str = "native"
    slow: bool = False


@dataclass(frozen=True)
class Effort:
    """How many events are timed and judged, of a slow variant too, and how long networks learn."""

    timed: int = 3
    judged: int = 8
    slow: int = 1
    events: int = 8
    updates: int = 400

    def of(self, variant: Variant) -> tuple[int, int]:
        """Return how many events of a variant are timed and judged."""
        return (1, self.slow) if variant.slow else (self.timed, self.judged)


class Workshop:
    """Makes variants of a bundle in a folder."""

    def __init__(
        self, bundle: Bundle, training: Sequence[EventSource], folder: Path, effort: Effort
    ) -> None:
        self.bundle, self.folder, self.effort = bundle, folder, effort
        self.training = training[: effort.events]
        self.teacher = NativePipeline(bundle, threads=os.cpu_count() or 1, precision="float32")

    def with_settings(self, name: str, **changes: Any) -> Path:
        """Return a copy of the bundle with other settings: a value, or some values of a table."""
        place = self.folder / re.sub(r"\W+", "-", name)
        shutil.copytree(self.bundle.path, place, dirs_exist_ok=True)
        found = tomllib.loads((place / "bundle.toml").read_text())
        for key, value in changes.items():
            found[key] = {**found[key], **value} if isinstance(value, dict) else value
        del found["format"]
        write_description(place, found)
        return place

    def with_networks(self, name: str, *sources: Path, **changes: Any) -> Path:
        """Return a copy of the bundle with other settings and these networks in place of its own."""
        place = self.with_settings(name, **changes)
        for source in sources:
            shutil.copy2(source, place / f"{source.stem.partition('-')[0]}.onnx")
        return place

    @cache  # noqa: B019 - one workshop a run
    def outputs(self, event: int) -> tuple[Float32, StageOutputs]:
        """Return features in canonical order and what each stage gives for a training event."""
        source = self.training[event]
        hits = source.read_columns(self.bundle.features.wire_columns, truth=False).hits
        out = self.teacher.run(hit_features(hits, self.bundle.features))
        return out.scored.features, out

    def sizes(self, kind: str) -> dict[str, Any]:
        """Return how the bundle's network of this kind describes itself."""
        entries = onnx.load(self.bundle.path / f"{kind}.onnx").metadata_props
        described: dict[str, Any] = json.loads(next(e.value for e in entries if e.key == METADATA))
        return described

    # ---- a shallower GNN that answers as the bundle's own

    def shallow_gnn(self, steps: int) -> Path:
        """Train a GNN of ``steps`` steps to answer as the bundle's and return its file."""
        path = self.folder / f"gnn-{steps}-steps.onnx"
        if not path.is_file():
            work = self.folder / path.stem
            work.mkdir(exist_ok=True)
            torch.manual_seed(1)
            sizes = {**self.sizes("gnn"), "steps": steps}
            network = Gnn(self.bundle.features, width=sizes["width"], steps=steps)
            fit(
                network,
                self._likeness(network),
                name="gnn",
                events=len(self.training),
                updates=self.effort.updates,
                learning_rate=LEARNING_RATE,
                seed=1,
                folder=work,
            )
            features, out = self.outputs(0)
            edges, triplets = among(out.joined.edges, _triplets(out), self._part(out))
            export_network(
                network,
                path,
                output="logits",
                description=sizes,
                features=features,
                edges=edges,
                triplets=triplets,
            )
        return path

    def _likeness(
        self, network: nn.Module
    ) -> Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]]:
        def loss(event: int, generator: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
            features, out = self.outputs(event)
            features = turned(features, self.bundle.features, generator)
            kept = self._part(out, generator.uniform(-1, 1))
            given = among(out.joined.edges, _triplets(out), kept)
            pairs = [(a.astype(np.int32), b.astype(np.int32)) for a, b in given]
            teacher = self.teacher._gnn_logits
            wanted = torch.from_numpy(teacher(features, *pairs, threads=self.teacher.threads))
            logits = network(torch.from_numpy(features), *map(torch.from_numpy, given))
            likeness = binary_cross_entropy_with_logits(logits, wanted.sigmoid())
            return likeness, {"off": float((logits - wanted).abs().mean())}

        return loss

    def _part(self, out: StageOutputs, middle: float = 0.0) -> Any:
        """Which joined edges lie in a wedge about ``middle`` (in the feature's unit) of the azimuth."""
        phi = self.bundle.features.columns.index("phi")
        turn = np.pi / self.bundle.features.scales[phi]
        share = min(1.0, EDGES_OF_AN_UPDATE / max(out.joined.edges.shape[1], 1))
        away = np.abs(out.scored.features[:, phi] - middle * turn)
        inside = np.minimum(away, 2 * turn - away) <= share * turn
        return inside[out.joined.edges].all(axis=0)

    # ---- 8 bits

    def calibrated(self) -> Path:
        """Return the bundle with the ranges that the native engine needs for 8 bits."""
        path = self.folder / "calibrated"
        if not path.exists():
            calibrate(self.bundle, self.training, path)
        return path

    # ---- the filter on onnxruntime, in float32 and in 8 bits

    def undescribed_filter(self) -> Path:
        """Return the bundle's filter as a file that the native engine leaves to onnxruntime."""
        model = onnx.load(self.bundle.filter_path)
        del model.metadata_props[:]
        path = self.folder / "filter-onnxruntime.onnx"
        onnx.save(model, path)
        return path

    def filter_of_8_bits(self) -> Path:
        """Return the filter with weights and activations in 8 bits, calibrated on training events."""
        features, out = self.outputs(0)
        rows = np.random.default_rng(0).integers(out.candidates.edges.shape[1], size=(4, 50_000))
        feeds = iter(
            [{"features": features, "edges": out.candidates.edges[:, some]} for some in rows]
        )

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
            def get_next(self) -> dict[str, Any] | None:
                return next(feeds, None)

        path = self.folder / "filter-8-bits.onnx"
        quantize_static(
            self.undescribed_filter(),
            path,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Gemm", "MatMul"],
        )
        return path


def _triplets(out: StageOutputs) -> Int64:
    assert isinstance(out.joined, TripletGraph), "a bundle without triplets has no such techniques"
    return out.joined.triplets


def variants(shop: Workshop) -> Iterator[Variant]:
    """Yield every variant that this processor computes, the bundle in float32 first, two together last."""
    infinite = {"kink": float("inf"), "slope": float("inf"), "off": 0.0, "dphi": 0.0}
    plain = {"precision": "float32"}
    own = shop.with_settings(BASE, **plain)
    yield Variant(BASE, own)
    yield Variant("operators one by one", own, engine="reference", slow=True)
    if "bfloat16" in library().precisions():
        yield Variant("bfloat16", shop.with_settings("bfloat16", precision="bfloat16"))
    if "int8" in library().precisions():
        files = [shop.calibrated() / f"{kind}.onnx" for kind in ("filter", "triplets")]
        yield Variant("int8", shop.with_networks("int8", *files, precision="int8"))
    yield Variant(
        "filter on onnxruntime",
        shop.with_networks("filter on onnxruntime", shop.undescribed_filter(), **plain),
        slow=True,
    )
    yield Variant(
        "filter on onnxruntime, 8 bits",
        shop.with_networks("filter of 8 bits", shop.filter_of_8_bits(), **plain),
        slow=True,
    )
    for kind, named in (("filter", "filter"), ("triplets", "triplet classifier")):
        name = f"{named} before pruning"
        cut = {kind: {"cut": UNPRUNED_CUTS[kind]}}
        yield Variant(name, shop.with_networks(name, UNPRUNED / f"{kind}.onnx", **cut, **plain))
    shallow = shop.shallow_gnn(STEPS)
    name = f"GNN of {STEPS} steps, distilled"
    yield Variant(name, shop.with_networks(name, shallow, **plain))
    found = tomllib.loads((own / "bundle.toml").read_text())
    no_network = {"triplets": {"cut": 1e-6}}
    no_cuts = {"triplets": {"cuts": infinite}}
    no_doublets = {"neighbours": {"cuts": {**found["neighbours"]["cuts"], "z0": float("inf")}}}
    for name, changes in (
        ("without the triplet classifier", no_network),
        ("without cuts on triplets", no_cuts),
        ("without the cut on z0", no_doublets),
    ):
        yield Variant(name, shop.with_settings(name, **changes, **plain), slow=True)
    if "bfloat16" in library().precisions():
        name = f"bfloat16, GNN of {STEPS} steps"
        yield Variant(name, shop.with_networks(name, shallow, precision="bfloat16"))


def measure(
    chosen: Sequence[Variant], sources: Sequence[EventSource], effort: Effort
) -> dict[str, list[dict[str, float]]]:
    """Return the processor seconds of each stage, event by event, variants alternating."""
    pipelines = {v.name: open_pipeline(read_bundle(v.bundle), engine=v.engine) for v in chosen}
    columns = pipelines[BASE].bundle.features.wire_columns
    seconds: dict[str, list[dict[str, float]]] = {v.name: [] for v in chosen}
    for number, source in enumerate(tqdm(sources[: effort.timed], desc="timed", unit="event")):
        hits = source.read_columns(columns, truth=False).hits
        if number == 0:
            pipelines[BASE].find_tracks(hits)  # the first one warms up
        for variant in chosen:
            if number < effort.of(variant)[0]:
                _, stages = stage_seconds(pipelines[variant.name], hits)
                seconds[variant.name].append(stages)
    return seconds


def report(
    chosen: Sequence[Variant], events: Path, work: Path, workers: int, effort: Effort
) -> dict[str, Any]:
    """Return the table's numbers: of each variant seconds, edges, and physics beside the base's."""
    seconds = measure(chosen, find_events(events), effort)
    jobs = [Job(BundleFinder(v.bundle, v.engine), events, effort.of(v)[1]) for v in chosen]
    judged = dict(zip((v.name for v in chosen), judge(jobs, work, workers), strict=True))
    rows = {}
    for variant in chosen:
        name = variant.name
        together = judged[name].together()
        same = judged[BASE].together(list(judged[name].events))
        first = len(seconds[name])
        rows[name] = {
            "timed": first,
            "seconds": medians(seconds[name]),
            "base_seconds": medians(seconds[BASE][:first]),
            "judged": together.events,
            "edges": {s: c.edges / together.events for s, c in together.stages.items()},
            **{
                key: {"value": share(here), "points": 100 * (share(here) - share(there))}
                for key, here, there in (
                    *(
                        (s, together.targets[s].efficiency, same.targets[s].efficiency)
                        for s in ("headline", "strict")
                    ),
                    ("fake_rate", together.fakes, same.fakes),
                )
            },
        }
    return rows


def share(ratio: Ratio) -> float:
    """Return a ratio; of no tracks at all none is fake."""
    return ratio.value if ratio.total else 0.0


def main() -> None:
    """Parse the command line, make the variants, measure, write and print."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.speed.techniques", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--events", type=Path, required=True, help="unseen pileup-200 events")
    parser.add_argument("--training", type=Path, required=True, help="events to learn on")
    parser.add_argument("--bundle", type=Path, help="folder (default: the shipped bundle)")
    parser.add_argument("--work", type=Path, help="keep variants and results here, and go on")
    parser.add_argument("--json", type=Path, default=RESULT, help="file for every number")
    parser.add_argument("--quick", action="store_true", help="once each: to see that all runs")
    options = parser.parse_args()
    effort = Effort(1, 1, 1, 1, 2) if options.quick else Effort()
    bundle = read_bundle(options.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        made = work / f"variants-{bundle.digest()}"
        made.mkdir(parents=True, exist_ok=True)
        shop = Workshop(bundle, find_events(options.training), made, effort)
        chosen = list(variants(shop))
        workers = len(os.sched_getaffinity(0))
        rows = report(chosen, options.events, work / "results", workers, effort)
    result = {
        "installation": installation(),
        "bundle": {"name": bundle.name, "digest": bundle.digest()},
        "updates": effort.updates,
        "techniques": rows,
    }
    write_json(options.json, result)
    for table in TECHNIQUES.values():
        print(table(result), end="\n\n")


if __name__ == "__main__":
    main()
