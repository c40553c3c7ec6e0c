"""What this installation is and has, in words: what to look at first when something is slow or missing."""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import trackserve
from trackserve.engines.registry import engine, names
from trackserve.errors import MissingDependencyError, needs_extra

CPUINFO = Path("/proc/cpuinfo")
FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")
"""What a processor may have that kernels gain from, as Linux calls it."""


def facts() -> dict[str, str]:
    """Return version, engines, processor, bundles and parts of this installation, by name."""
    return {
        "version": f"{trackserve.__version__} in {Path(trackserve.__file__).parent}",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "processor": _processor(),
        **_pipeline(),
        **_parts(),
    }


def installation_report() -> str:
    """Return the facts, a line each."""
    rows = facts()
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows.items())


def _processor() -> str:
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.is_file() else ""
    entries: dict[str, str] = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE))
    flags = entries.get("flags", entries.get("Features", "")).split()
    found = " ".join(feature for feature in FEATURES if feature in flags)
    cores = len(os.sched_getaffinity(0))
    return f"{entries.get('model name', 'unknown')}, {cores} cores, {found or 'nothing known'}"


def _pipeline() -> dict[str, str]:
    """Describe the engines and the bundles, which the [server] part is needed for."""
    try:
        with needs_extra("engines", "finding tracks in this process"):
            import onnxruntime  # noqa: F401

            from trackserve.bundle import read_bundle, shipped_bundles
    except MissingDependencyError as error:
        return {f"engine {name}": str(error) for name in names()}
    rows = {f"engine {name}": _engine(name) for name in names()}
    for path in shipped_bundles():
        bundle = read_bundle(path)
        rows[f"bundle {bundle.name}"] = f"{bundle.digest()}, for {bundle.detector}"
    return rows


def _engine(name: str) -> str:
    """Return what of an engine is installed, or why it is not available."""
    found = engine(name)
    try:
        return found.unavailable() or found.details()
    except MissingDependencyError as error:
        return str(error)


def _parts() -> dict[str, str]:
    """List for each part what of it is installed, with versions, and how to install the rest."""
    parts: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for requirement in metadata.requires("trackserve") or []:
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        assert name
        if name[0] != "trackserve":  # a part that another one takes in
            parts[extra[1] if extra else "client"][name[0]] = None
    return {f"part {part}": _packages(part, list(names)) for part, names in parts.items()}


def _packages(part: str, names: list[str]) -> str:
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        found.append(f"missing {', '.join(missing)}: pip install 'trackserve[{part}]'")
    return ", ".join(found)
