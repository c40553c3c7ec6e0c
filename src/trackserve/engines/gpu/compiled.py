"""What the kernels take of a device, compiled without one: registers, spills, shared memory, occupancy.

    python -m trackserve.engines.gpu.compiled [--width N]    prints JSON

Sizes are those of the shipped bundle's networks. Must not run in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trackserve.engines.gpu import embedding, filter, fit, gnn, joining, neighbours, triplets
from trackserve.engines.gpu.kernels.embedding import embedding_kernel
from trackserve.engines.gpu.kernels.filter import filter_kernel
from trackserve.engines.gpu.kernels.fit import fit_kernel, near_pieces_kernel
from trackserve.engines.gpu.kernels.gnn import (
    encode_links_kernel,
    encode_nodes_kernel,
    update_links_kernel,
    update_nodes_kernel,
)
from trackserve.engines.gpu.kernels.neighbours import near_tiles_kernel, pairs_kernel
from trackserve.engines.gpu.kernels.triplets import join_kernel, triplet_kernel
from trackserve.engines.gpu.weights import DOT, power_of_two

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class Target:
    """A device to compile for, with what one multiprocessor (compute unit) has."""

    name: str
    backend: str
    arch: int | str
    warp: int
    registers: int
    shared: int
    warps: int

    def gpu(self) -> GPUTarget:
        """Return it as Triton names it."""
        return GPUTarget(self.backend, self.arch, self.warp)


TARGETS = (
    Target("sm_80", "cuda", 80, 32, 65_536, 164 * 1024, 64),
    Target("sm_90", "cuda", 90, 32, 65_536, 228 * 1024, 64),
    Target("sm_100", "cuda", 100, 32, 65_536, 228 * 1024, 64),
    # Registers of one of the four units that waves are bound to; AMD counts waves by unit.
    Target("gfx942", "hip", "gfx942", 64, 512, 64 * 1024, 8),
)
"""A100, H100 and H200, B100 and B200, MI300."""

POINTERS_TO_INT64 = {
    *("edges", "edge_count", "kept", "kept_count", "outer", "inner", "first_edge", "ends"),
    *("found", "count", "triplets", "triplet_count", "one", "other", "outgoing", "incoming"),
    *("incoming_links", "tile_pairs", "tile_pair_count"),
    *("begins", "first_hit", "last_hit", "sizes", "number", "event_end"),
}
POINTERS_TO_INT32 = {"rank", "event", "degree"}
POINTERS_TO_FLOAT64 = {"radius", "hits", "tracks", "found_tracks", "pieces"}
FLOATS = {"slope", "dphi", "z0", "dcot", "far", "sure", "possible", "least", "kink", "off"}
IN_PRECISION = {
    *("hidden", "last", "own", "from_inside", "from_outside", "link_first", "link_second", "score"),
    *("score_last", "nodes", "links", "to_first", "to_second"),
}
"""Parameters by what they are; the others are float32 arrays."""


@dataclass(frozen=True)
class Configuration:
    """A kernel as it is launched: the sizes fixed when it is compiled, and its options."""

    name: str
    kernel: Any
    sizes: dict[str, Any]
    fused: bool = True
    integers: tuple[str, ...] = ()
    warps: int = 4

    def source(self, precision: str, target: Target) -> ASTSource:
        """Return what Triton compiles."""
        sizes = dict(self.sizes)
        if "PRECISION" in self.kernel.arg_names:
            sizes["PRECISION"] = DOT[target.backend]
        signature = {
            name: "constexpr" if name in sizes else self._type(name, precision)
            for name in self.kernel.arg_names
        }
        return ASTSource(self.kernel, signature, sizes)

    def _type(self, name: str, precision: str) -> str:
        if name in self.integers:
            return "i32"
        if name in FLOATS:
            return "fp32"
        if name in POINTERS_TO_INT64:
            return "*i64"
        if name in POINTERS_TO_INT32:
            return "*i32"
        if name in POINTERS_TO_FLOAT64:
            return "*fp64"
        narrow = precision == "bfloat16" and name in IN_PRECISION
        return "*bf16" if narrow else "*fp32"


def configurations(width: int | None = None) -> list[Configuration]:
    """Return every kernel as the shipped bundle's networks need it; or with layers of this width."""
    wide, narrow, state = (power_of_two(width or w) for w in (96, 16, 32))
    logits = {"FURTHER": 0, "LOGITS": False}
    cuts = {"SLOPE": True, "Z0": True}
    point = {"D": 8, "WIDE_D": 16, "FURTHER": 0}
    tile = {"A": neighbours.TILES, "B": neighbours.TILES, "D": 8, **cuts}
    rows = {"B": gnn.ROWS, "W": state}
    width = width or 32
    return [
        Configuration(
            "embedding", embedding_kernel,
            {"B": embedding.HITS, "W": wide, "LAYERS": 2, **point}, integers=("hits",),
            warps=embedding.WARPS,
        ),
        Configuration(
            "neighbours: tiles", near_tiles_kernel, tile, fused=False, integers=("tiles", "room"),
            warps=neighbours.TILE_WARPS,
        ),
        Configuration(
            "neighbours: pairs", pairs_kernel, {"D": 8, "LEAF": neighbours.LEAF, **cuts},
            fused=False, integers=("size", "room"),
        ),
        Configuration(
            "filter", filter_kernel,
            {"B": filter.EDGES, "W": narrow, "LAYERS": 2, **logits}, integers=("room",),
        ),
        Configuration(
            "triplets: join", join_kernel,
            {"B": triplets.PAIRS, "SEARCH": 20, "KINK": True, "SLOPE": True},
            fused=False, integers=("edges", "room"),
        ),
        Configuration(
            "triplets: network", triplet_kernel,
            {"B": triplets.TRIPLETS, "W": narrow, "LAYERS": 1, **logits}, integers=("room",),
        ),
        Configuration("gnn: first nodes", encode_nodes_kernel, {**rows, "FURTHER": 0}, warps=gnn.WARPS),
        Configuration("gnn: first links", encode_links_kernel, {**rows, "FURTHER": 0}, warps=gnn.WARPS),
        Configuration("gnn: nodes", update_nodes_kernel, {**rows, "WIDTH": width, "SCORE": False}, warps=gnn.WARPS),
        Configuration("gnn: last nodes", update_nodes_kernel, {**rows, "WIDTH": width, "SCORE": True}, warps=gnn.WARPS),
        Configuration("gnn: links", update_links_kernel, {**rows, "WIDTH": width}, warps=gnn.WARPS),
        Configuration(
            "tracks: fit", fit_kernel, {**fit.NUMBERS, "B": fit.TRACKS}, fused=False,
            integers=("hit_count", "track_count"), warps=fit.WARPS,
        ),
        Configuration(
            "tracks: near pieces", near_pieces_kernel,
            {**joining.NEAR, "SEARCH": 14, "B": joining.PIECES}, fused=False,
            integers=("piece_count", "room"), warps=joining.WARPS,
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes: registers of a thread, bytes spilled, shared bytes of a program.

    ``occupancy`` is the part of a multiprocessor's warps that may be resident.
    """

    kernel: str
    target: str
    precision: str
    registers: int
    spilled: int
    shared: int
    occupancy: float


def compile_kernel(configuration: Configuration, precision: str, target: Target) -> Resources:
    """Compile a kernel for a target and return what it takes. No device or driver is needed."""
    source = configuration.source(precision, target)
    options = {"num_warps": configuration.warps, "enable_fp_fusion": configuration.fused}
    compiled = triton.compile(source, target=target.gpu(), options=options)
    shared = int(compiled.metadata.shared)
    if target.backend == "cuda":
        registers, spilled = _read_ptxas(compiled.asm["ptx"])
        allocated = -(-registers * target.warp // 256) * 256
        by_registers = target.registers // allocated
    else:
        registers, spilled = _read_amdgcn(compiled.asm["amdgcn"])
        by_registers = target.registers // (-(-registers // 8) * 8)
    programs = target.shared // (shared + 1024) if shared else target.warps
    warps = configuration.warps
    waves_a_program = warps if target.backend == "cuda" else max(1, warps // 4)
    resident = min(target.warps, by_registers, programs * waves_a_program)
    resident -= resident % waves_a_program
    return Resources(
        configuration.name,
        target.name,
        precision,
        registers,
        spilled,
        shared,
        resident / target.warps,
    )


def _read_ptxas(text: str) -> tuple[int, int]:
    """Return registers of a thread and bytes spilled, as ptxas reports them for this PTX."""
    (arch,) = re.findall(r"^\.target (\w+)", text, re.MULTILINE)
    # The newest of those that come with triton reads whatever PTX triton writes.
    tool = "ptxas-blackwell" if (TOOLS / "ptxas-blackwell").is_file() else "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        command = [str(TOOLS / tool), "-v", "--gpu-name", arch, file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    used = re.search(r"Used (\d+) registers", report)
    if found is None or used is None:
        message = f"ptxas reports no registers for {arch}: {report[:200]}"
        raise RuntimeError(message)
    return int(used.group(1)), int(found.group(1))


def _read_amdgcn(text: str) -> tuple[int, int]:
    """Return vector registers and bytes spilled, from the assembly's metadata."""

    def value(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found.group(1)) if found else 0

    return value("vgpr_count"), 4 * value("vgpr_spill_count") + value("private_segment_fixed_size")


def main() -> None:
    """Compile every kernel for every target and print what each takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int)
    parser.add_argument("--kernels", nargs="+")
    parser.add_argument("--targets", nargs="+", default=[target.name for target in TARGETS])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    asked = parser.parse_args()
    found = [
        asdict(compile_kernel(configuration, precision, target))
        for target in TARGETS
        if target.name in asked.targets
        for precision in asked.precisions
        for configuration in configurations(asked.width)
        if asked.kernels is None or configuration.name in asked.kernels
    ]
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
