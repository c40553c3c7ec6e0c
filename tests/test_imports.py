"""Imports point one way, and the client carries nothing of the pipeline."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trackserve

ROOT = Path(trackserve.__file__).parent
FOUNDATION = {"checks", "columns", "errors", "event", "files", "track_table"}
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "files": set(),
    "columns": {"errors", "event"},
    "checks": {"errors"},
    "track_table": {"checks", "errors"},
    "event": {"checks", "errors", "track_table"},
    "contract": FOUNDATION,
    "data": FOUNDATION,
    "pipeline": FOUNDATION | {"contract"},
    "bundle": FOUNDATION | {"contract", "pipeline"},
    "engines": FOUNDATION | {"bundle", "contract", "pipeline"},
    "installation": {"__init__", "errors", "bundle", "engines"},
    "evaluate": FOUNDATION | {"bundle", "pipeline", "data"},
    "view": FOUNDATION | {"evaluate"},
    "training": FOUNDATION | {"bundle", "pipeline", "engines", "data", "evaluate", "__init__"},
    "client": FOUNDATION | {"contract"},
    "finding": FOUNDATION | {"bundle", "client", "contract", "data", "engines"},
    "client.fallback": FOUNDATION | {"contract", "bundle", "engines", "pipeline"},
    "backend": FOUNDATION | {"bundle", "pipeline", "engines", "contract"},
    "serving": FOUNDATION | {"bundle", "pipeline", "engines", "contract"},
    "serving.fleet": FOUNDATION | {"bundle", "client", "contract", "serving"},
    "acts": FOUNDATION | {"client", "bundle", "engines", "pipeline"},
    "load": FOUNDATION | {"bundle", "client", "contract", "engines", "serving"},
}
"""Part of the package -> the other parts that it may import when it runs; cli may import all."""


def part(module: str) -> str:
    """The part of the package that a module such as ``pipeline.gnn`` belongs to."""
    while module not in MAY_IMPORT and "." in module:
        module = module.rpartition(".")[0]
    return module


def imported(path: Path) -> set[str]:
    """The modules of trackserve that a file imports when it runs, without the package's name."""
    found = set()
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = {
        m.removeprefix("trackserve").lstrip(".") for m in found if m.split(".")[0] == "trackserve"
    }
    return {m for m in ours if (ROOT / m.replace(".", "/")).is_dir() or _is_module(m)} - {""}


def _is_module(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()


MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) not in {"cli", "__main__"}])
def test_imports_point_one_way(module):
    assert part(module) in MAY_IMPORT, f"{module}: say in MAY_IMPORT what it may import"
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    others = {part(m) for m in imported(path)} - {part(module)}
    assert others <= MAY_IMPORT[part(module)], f"{module} imports {sorted(others)}"


def test_the_client_loads_numpy_and_tritonclient_only():
    code = "import sys, trackserve.client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"numpy", "tritonclient.grpc", "trackserve.client"} <= loaded
    heavy = {
        "opentelemetry",
        "scipy",
        "onnx",
        "onnxruntime",
        "torch",
        "matplotlib",
        "pytriton",
        "pandas",
    }
    assert loaded.isdisjoint(heavy)
    ours = {m for m in loaded if m.split(".")[0] == "trackserve"}
    assert {m.removeprefix("trackserve").lstrip(".") for m in ours} == {
        *(
            "",
            "client",
            "columns",
            "client.asynchronous",
            "client.connection",
            "client.core",
            "client.credentials",
        ),
        *(
            "client.failures",
            "client.http",
            "client.table",
            "client.tracing",
            "client.tries",
            "errors",
        ),
        *("event", "event.arrays", "event.graph", "event.hits", "event.tracks", "event.truth"),
        *("checks", "track_table"),
        *("contract", "contract.description", "contract.tensors", "contract.wanted"),
        *("contract.compact", "contract.trace"),
    }


def test_a_server_starts_without_what_the_reference_engine_computes_with():
    """Each of a server's processes would take half a second longer to start."""
    code = "import sys, trackserve.serving.service, trackserve.engines.native; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"numpy", "onnx", "trackserve.engines.native"} <= loaded
    assert loaded.isdisjoint({"scipy", "onnxruntime", "torch"})


def test_the_architecture_page_shows_every_arrow():
    page = Path(__file__).parents[1] / "docs/architecture.md"
    rows = re.findall(r"^\| `([\w.]+)` \|[^|]*\|([^|]*)\|$", page.read_text(), re.MULTILINE)
    shown = {room: set(re.findall(r"`([\w.]+)`", arrows)) for room, arrows in rows if room != "cli"}
    hidden = FOUNDATION | {"__init__"}
    expected = {room: to - hidden for room, to in MAY_IMPORT.items() if room not in hidden}
    assert shown == expected, "bring the table in docs/architecture.md up to date"
