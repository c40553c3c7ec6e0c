"""The house stays in order: files and functions that fit in the head, and no rooms for odds and ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trackserve

ROOT = Path(trackserve.__file__).parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 60
LONGER_FUNCTIONS = {
    # A kernel is compiled as one function, and its numbers stay in registers from end to end.
    "engines/gpu/kernels/fit.py:fit_kernel": 90,
    "engines/gpu/kernels/fit.py:near_pieces_kernel": 80,
    "engines/gpu/kernels/neighbours.py:near_tiles_kernel": 80,
    "engines/gpu/kernels/neighbours.py:pairs_kernel": 80,
}
"""Functions that may be longer, as ``file:function``, with their limit; each needs a reason beside it."""
NO_IDEA = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "tools", "stuff"}
"""Names that say nothing about what is inside."""


def functions(tree: ast.AST, prefix: str = "") -> dict[str, int]:
    """The lines of each function without its docstring, by its name within its classes."""
    found = {}
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            docstring = ast.get_docstring(node, clean=False) or ""
            found[name] = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
        if isinstance(node, ast.ClassDef):
            found |= functions(node, f"{name}.")
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_file_fits_in_the_head(file):
    lines = len((ROOT / file).read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, "split it: one idea a file"


@pytest.mark.parametrize("file", FILES)
def test_a_function_fits_on_a_screen(file):
    found = functions(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    long = {
        name: lines
        for name, lines in found.items()
        if lines > LONGER_FUNCTIONS.get(f"{file}:{name}", FUNCTION_LINES)
    }
    assert not long, "split them: one step a function"


@pytest.mark.parametrize("file", FILES)
def test_a_name_says_what_is_inside(file):
    assert not NO_IDEA & set(Path(file).with_suffix("").parts)


def test_no_two_files_of_tests_have_one_name():
    """Pytest takes the second for the first, and says so only where both are collected."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
