"""What processes hold: memory, descriptors, threads; and what lies in /dev/shm and in the folders for temporary files."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackserve.serving.process import children

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARED_MEMORY = Path("/dev/shm")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Held:
    """What one process holds: private and resident memory (MB), open descriptors, threads."""

    memory_mb: float
    descriptors: int
    threads: int


def held(pid: int) -> Held:
    """Return what a process holds; its shared pages count where they are mapped, in /dev/shm."""
    folder = Path(f"/proc/{pid}")
    _, resident, shared = (int(n) for n in (folder / "statm").read_text().split()[:3])
    threads = sum(1 for _ in (folder / "task").iterdir())
    descriptors = sum(1 for _ in (folder / "fd").iterdir())
    return Held((resident - shared) * PAGE / 1e6, descriptors, threads)


def processes(named: Mapping[str, int]) -> dict[str, Held]:
    """Return what these processes and their children hold, by name; one that has ended is left out."""
    found = {}
    for name, pid in named.items():
        every = {
            name: pid,
            **{f"{name}/{i}": child for i, child in enumerate(sorted(children(pid)))},
        }
        for each, number in every.items():
            with suppress(FileNotFoundError, ProcessLookupError):
                found[each] = held(number)
    return found


def around() -> dict[str, float]:
    """Return how much lies in /dev/shm (MB) and how many temporary folders are ours."""
    shared = list(SHARED_MEMORY.glob("trackserve_*"))
    size = 0
    for path in shared:
        with suppress(FileNotFoundError):
            size += path.stat().st_blocks * 512
    folders = {
        p for parent in {tempfile.gettempdir(), "/tmp"} for p in Path(parent).glob("trackserve-*")
    }
    folders |= set(Path("/tmp").glob("python_env_*"))
    return {"shared_memory_mb": size / 1e6, "regions": len(shared), "folders": len(folders)}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second number of each point grows with the first: a line of least squares."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def growth(samples: Sequence[Mapping[str, Any]], name: str, kind: str) -> dict[str, float]:
    """Return how one figure of a process went: at the start, at half time, at the end; and its slope then (1/h)."""
    points = [(s["seconds"], s["processes"][name][kind]) for s in samples if name in s["processes"]]
    half = points[len(points) // 2 :]
    return {
        "first": points[0][1],
        "half": half[0][1],
        "last": points[-1][1],
        "most": max(y for _, y in points),
        "per_hour_second_half": 3600 * slope(half),
    }
