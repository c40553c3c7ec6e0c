"""What every kernel takes of every device that it is compiled for: the table of docs/gpu.md."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from studies.record import RESULTS, write_json

RESULT = RESULTS / "gpu-kernels.json"
ENGINE = Path(__file__).parents[2] / "src/trackserve/engines/gpu"
LAUNCHERS = ("embedding", "filter", "fit", "gnn", "joining", "neighbours", "triplets")
"""The modules whose constants say how kernels are launched."""


def code_digest() -> str:
    """Return a digest of the kernels and of how they are compiled, whatever their comments say."""
    nodes = [ast.parse(path.read_text()) for path in sorted((ENGINE / "kernels").glob("*.py"))]
    parts = [ast.dump(_without_docstrings(node)) for node in nodes]
    for name in LAUNCHERS:
        body = ast.parse((ENGINE / f"{name}.py").read_text()).body
        parts += [ast.dump(node) for node in body if isinstance(node, ast.Assign)]
    body = ast.parse((ENGINE / "compiled.py").read_text()).body
    (made,) = (n for n in body if isinstance(n, ast.FunctionDef) and n.name == "configurations")
    parts.append(ast.dump(_without_docstrings(made)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def compiled(*arguments: str) -> list[dict[str, Any]]:
    """Return what kernels take; in a process of its own, for Triton compiles or interprets."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "trackserve.engines.gpu.compiled", *arguments]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        message = f"the kernels don't compile: {made.stderr.strip().splitlines()[-1]}"
        raise RuntimeError(message)
    found: list[dict[str, Any]] = json.loads(made.stdout)
    return found


def run(path: Path = RESULT) -> dict[str, Any]:
    """Compile every kernel for every target, and write what each takes."""
    import torch  # noqa: PLC0415 - seconds
    import triton  # noqa: PLC0415 - whoever imports it chooses between compiler and interpreter

    rows = compiled()
    spilled = sorted({f"{row['kernel']} on {row['target']}" for row in rows if row["spilled"]})
    record = {
        "code": code_digest(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "spilled": spilled,
        "kernels": rows,
    }
    write_json(path, record)
    return record
