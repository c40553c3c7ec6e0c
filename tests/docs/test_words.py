"""Plain words: no private vocabulary in documents, docstrings and messages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.documents import ROOT, documents

if TYPE_CHECKING:
    from collections.abc import Iterator

GLOSSARY = {
    r"\banew\b": "again, re-",
    r"\bso many\b": "N, this many",
    r"\bis to be had\b": "is available",
    r"\bunder way\b": "in flight",
    r"\bstarted anew\b": "restarted",
    r"\bnetwork on triplets\b|\btriplets' network\b": "triplet classifier",
    r"\bhear of\b|\bhears\b": "receive",
    r"\btold\b|\btells?\b": "reported, shows",
    r"\bgoes with --": "needs --",
}
"""Words that a physicist would stumble over, and what to write."""
PAGES = [*documents(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def words_of_python(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every comment and every string of a module that is a text, not a name, with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def words_of_cpp(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every comment of a C++ file that stands alone or ends a line, with its line."""
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if "//" in text:
            yield line, text.partition("//")[2]


def private(text: str) -> list[str]:
    """Return the words of a text that the glossary replaces, each with what to write."""
    flat = " ".join(text.split())
    return [
        f"{found[0]!r}: write {better}"
        for pattern, better in GLOSSARY.items()
        for found in re.finditer(pattern, flat, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_no_private_words(page):
    assert private(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("folder", ["src", "studies", "tools", "tests"])
def test_python_has_no_private_words(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(__file__)
        for line, text in words_of_python(path)
        for word in private(text)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["native", "clients/cpp"])
def test_cpp_has_no_private_words(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".h", ".cpp"}
        for line, text in words_of_cpp(path)
        for word in private(text)
    ]
    assert found == []
