"""What each stage of an event asks of a device, counted while Triton's interpreter runs it.

Counted are operations of torch and kernels as they are started, the arrays that they read and write, and
where the host waits for a number. Products follow from the rows of each kernel and the widths of the
networks. An array counts once in each kernel: rows gathered again come from the device's cache.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from trackserve.engines.gpu import neighbours, stages
from trackserve.engines.gpu.engine import GpuPipeline
from trackserve.engines.gpu.stages import DeviceClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trackserve.bundle import Bundle
    from trackserve.engines.gpu.lists import Pairs, Room
    from trackserve.engines.gpu.order import DeviceHits
    from trackserve.event import Float32
    from trackserve.pipeline.neighbours import DoubletCuts

LEAF = 32
"""Hits of a tile on a device; the interpreter takes more."""
LISTS = {"found", "entries", "edges", "kept", "triplets"}
"""Parameters that may have more room than is filled: their bytes follow from the count."""
HIT, PAIR, TRIPLET = 3, 7, 9
"""Inputs of a network: of a hit, of two hits, of three."""
FIT_STEPS = 400
"""Multiply-adds in float64 that a hit of a fitted track takes, all iterations together."""


@dataclass
class Work:
    """What a stage asks for: starts, waits of the host, bytes, and multiply-adds by kind."""

    operations: int = 0
    kernels: int = 0
    waits: int = 0
    bytes: int = 0
    matrix: int = 0
    vector: int = 0
    double: int = 0


@dataclass
class Counter(TorchDispatchMode):
    """Counts into ``stages`` what is started until each stage stops."""

    stages: dict[str, Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work = Work()
        self._inside = False

    def stop(self, stage: str) -> None:
        """Count what was started since the last stop for a stage."""
        self.stages[stage], self._work = self._work, Work()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Count an operation of torch that is no view."""
        del types
        result = func(*args, **(kwargs or {}))
        if self._inside or getattr(func, "is_view", False):
            return result
        name = func.overloadpacket.__name__
        tensors = [*_tensors(args), *_tensors(result)]
        if name in {"item", "_local_scalar_dense"}:
            self._work.waits += 1
        elif name not in {"empty", "detach", "alias", "_unsafe_view"}:
            self._work.operations += 1
            self._work.waits += name in {"nonzero", "masked_select"} or _by_mask(name, args)
            self._work.bytes += _sort_bytes(args[0]) if name == "sort" else _bytes(tensors)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing."""
        before, self._inside = self._inside, True
        yield
        self._inside = before

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Count kernels, too."""
        run = InterpretedFunction.run

        def counted(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> object:
            counts = not self._inside
            with self.paused():
                result = run(kernel, *args, grid=grid, warmup=warmup, **options)
                given = dict(zip(kernel.arg_names, args, strict=False)) | options
                if counts:
                    self._count(kernel.fn.__name__, given)
            return result

        with mock.patch.object(InterpretedFunction, "run", counted), self:
            yield

    def _count(self, name: str, given: dict[str, Any]) -> None:
        work = self._work
        work.kernels += 1
        count = next((given[n] for n in ("count", "kept_count") if n in given), None)
        for parameter, value in given.items():
            if isinstance(value, Tensor):
                listed = parameter in LISTS and count is not None and value.dtype == torch.int64
                rows = min(len(value), int(count)) if listed else len(value)
                work.bytes += rows * value.element_size() * (value[0].numel() if len(value) else 0)
        if name not in SEARCHES:  # the interpreter's tiles are others, so _search counts them
            PRODUCTS[name](given, work)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _sort_bytes(keys: Tensor) -> int:
    """Return the bytes of a radix sort: each pass of 8 bits reads and writes keys and indices."""
    return keys.element_size() * 2 * keys.numel() * (keys.element_size() + 8)


def _by_mask(name: str, args: Any) -> bool:
    return name in {"index", "index_put_"} and any(
        each.dtype == torch.bool for each in _tensors(args[1])
    )


# ---- multiply-adds of each kernel, from its rows and the widths of its network


def _embedding(given: dict[str, Any], work: Work) -> None:
    width, rows = given["W"], int(given["hits"])
    work.vector += rows * width * (7 + given["FURTHER"])
    work.matrix += rows * (given["LAYERS"] * width * width + width * given["WIDE_D"])


def _perceptron(inputs: int, hits: int, rows: str) -> Callable[[dict[str, Any], Work], None]:
    def count(given: dict[str, Any], work: Work) -> None:
        width, number = given["W"], int(given[rows])
        further = hits * given["FURTHER"]
        work.vector += number * width * (inputs + further + 1)
        work.matrix += number * given.get("LAYERS", 1) * width * width

    return count


def _nodes(given: dict[str, Any], work: Work) -> None:
    width, nodes = given["W"], int(given["edge_count"])
    work.matrix += nodes * width * width * (5 if given["SCORE"] else 6)
    work.vector += 2 * len(given["links"]) * width
    work.bytes += _bytes([given["links"]])  # once along each of its two ends


def _links(given: dict[str, Any], work: Work) -> None:
    width, links = given["W"], int(given["triplet_count"])
    work.matrix += links * width * width * 2
    work.bytes += 2 * links * width * given["links"].element_size()  # a row of both its nodes


def _join(given: dict[str, Any], work: Work) -> None:
    looked_at = int(given["ends"][-1])
    work.vector += looked_at * (20 + 2 * given["SEARCH"])


def _fit(given: dict[str, Any], work: Work) -> None:
    work.double += int(given["hit_count"]) * FIT_STEPS


def _near_pieces(given: dict[str, Any], work: Work) -> None:
    work.double += int(given["piece_count"]) * (given["SEARCH"] + given["MOST"]) * 20


SEARCHES = {"near_tiles_kernel", "pairs_kernel"}
EDGE_INPUTS, TRIPLET_INPUTS = PAIR + 2 * HIT, TRIPLET + 2 * PAIR + 3 * HIT
PRODUCTS: dict[str, Callable[[dict[str, Any], Work], None]] = {
    "embedding_kernel": _embedding,
    "filter_kernel": _perceptron(EDGE_INPUTS, 2, "edge_count"),
    "join_kernel": _join,
    "triplet_kernel": _perceptron(TRIPLET_INPUTS, 3, "triplet_count"),
    "encode_nodes_kernel": _perceptron(EDGE_INPUTS, 2, "edge_count"),
    "encode_links_kernel": _perceptron(TRIPLET_INPUTS, 3, "triplet_count"),
    "update_nodes_kernel": _nodes,
    "update_links_kernel": _links,
    "fit_kernel": _fit,
    "near_pieces_kernel": _near_pieces,
}


def count_work(bundle: Bundle, features: Float32) -> dict[str, Any]:
    """Return the counts of one pass over an event ``[N, F]`` by stage, and the edges that its stages leave."""
    pipeline = GpuPipeline(bundle, device="cpu", precision=bundle.precision)
    counter, stop, search = Counter(), DeviceClock.stop, neighbours.neighbours
    compared: list[tuple[int, int]] = []

    def stopped(clock: DeviceClock, stage: str, *more: Any) -> None:
        counter.stop(stage)
        stop(clock, stage, *more)

    def searched(points: Tensor, hits: DeviceHits, **settings: Any) -> Pairs:
        with counter.paused():
            compared.append(_search(points, hits, **settings))
        return search(points, hits, **settings)

    with (
        mock.patch.object(DeviceClock, "stop", stopped),
        mock.patch.object(stages, "neighbours", searched),
        counter.kernels(),
    ):
        (found,) = pipeline.run_events([features])
    counted = counter.stages
    counted["filter"].operations += counted.pop("cut").operations  # the kernel has cut already
    ((boxes, pairs),) = compared
    counted["neighbours"].vector += boxes + pairs
    return {
        "edges": dict(found.timings.edges),
        "boxes": boxes,
        "tile_pairs": pairs,
        "stages": {stage: asdict(work) for stage, work in counted.items()},
        "up_bytes": features.nbytes,
        "down_bytes": found.tracks.labels.nbytes,
    }


def _search(
    points: Tensor,
    hits: DeviceHits,
    *,
    radius: float,
    cuts: DoubletCuts,
    room: Room,
    **others: object,
) -> tuple[int, int]:
    """Return the multiply-adds of the search with tiles as on a device: boxes, then pairs of hits."""
    del others
    with mock.patch.object(neighbours, "LEAF", LEAF):
        thin = bool(np.isfinite(cuts.slope))
        tiles = neighbours.make_tiles(points, hits, radius=radius, thin=thin)
        near = neighbours.near_tiles(tiles, radius, cuts, room)
    dimension = points.shape[1]
    boxes = tiles.low.shape[1] ** 2 * (3 * dimension + 24)
    return boxes, len(near.entries) * LEAF * LEAF * (dimension + 12)
