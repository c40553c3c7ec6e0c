"""What the documentation says is true: its code runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from contextlib import redirect_stdout
from doctest import DocTestParser
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from served import FREE_PORTS
from tiny_bundle import straight_tracks
from tools.documents import (
    FOUND,
    PART,
    PHYSICS,
    RECIPE,
    ROOT,
    commands,
    documents,
    measured,
    refreshed,
    settings,
)
from trackserve.bundle import NETWORKS, read_bundle
from trackserve.cli import build_parser
from trackserve.contract.description import Description
from trackserve.engines.reference import ReferencePipeline
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings
from trackserve.training.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trackserve.serving.service import Service

TEXT = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents()}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FORBIDDEN = re.compile(r"/work\b|/root\b|/tmp\b|\bissue \d|\b(?:TODO|FIXME|TBD|XXX)\b")
"""Paths of one machine, and gaps that were left to be filled."""


def blocks(document: str, language: str) -> list[str]:
    """Return the blocks of code of a language."""
    return [code for name, code in FENCE.findall(TEXT[document]) if name == language]


def with_blocks(language: str) -> list[str]:
    """Return the documents that have such blocks."""
    return [document for document in TEXT if blocks(document, language)]


@pytest.fixture(scope="session")
def shipped() -> Iterator[Service]:
    """The shipped bundle on the reference engine, whose numbers are the same on every processor."""
    with serve(read_bundle(), Settings(), **FREE_PORTS) as server:
        yield server


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that the example of exporting networks writes."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    example = ROOT / "examples/export_networks.py"
    # In a process of its own: torch takes the folder tests/triton for a package.
    subprocess.run([sys.executable, example, folder], check=True, capture_output=True, cwd=ROOT)
    return folder


def at(server: Service, code: str) -> str:
    """Return code with the server's addresses in place of the usual ones."""
    grpc, http = (url.partition("://")[2] for url in (server.grpc_url, server.http_url))
    return code.replace("localhost:8001", grpc).replace("localhost:8000", http)


@pytest.mark.parametrize("document", TEXT)
def test_what_is_made_from_the_code_is_fresh(document):
    made = refreshed(TEXT[document])
    assert made == TEXT[document], "run: python -m tools.documents"
    assert len(PART.findall(made)) == made.count("<!-- made:")


@pytest.mark.service
@pytest.mark.parametrize("document", with_blocks("python"))
def test_python_runs(document, shipped, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    printed = StringIO()
    with redirect_stdout(printed):
        for code in blocks(document, "python"):
            exec(compile(at(shipped, code), document, "exec"), names)
    assert printed.getvalue() or document == "docs/own-networks.md"


@pytest.mark.service
@pytest.mark.parametrize("document", with_blocks("pycon"))
def test_sessions_print_what_they_say(document, shipped, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for session in blocks(document, "pycon"):
        for example in DocTestParser().get_examples(session):
            printed = StringIO()
            with redirect_stdout(printed):
                exec(compile(at(shipped, example.source), document, "single"), names)
            assert alike(printed.getvalue(), example.want), example.source


def alike(found: str, expected: str) -> bool:
    """Whether two texts differ in their numbers by 1 % at most: another processor rounds otherwise."""
    number = re.compile(r"-?\d+(?:\.\d+)?")
    pairs = zip(number.findall(found), number.findall(expected), strict=True)
    near = all(abs(float(a) - float(b)) <= 0.01 * abs(float(b)) for a, b in pairs)
    return near and number.sub("0", found).split() == number.sub("0", expected).split()


def command_lines(document: str) -> list[list[str]]:
    """Return the words of every trackserve command in a document's shell blocks."""
    lines = []
    for code in blocks(document, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").startswith("trackserve "):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                end = next((i for i, w in enumerate(words) if w in {"|", "&", ">"}), len(words))
                lines.append(words[1:end])
    return lines


@pytest.mark.parametrize("document", with_blocks("sh"))
def test_commands_parse(document):
    for words in command_lines(document):
        build_parser().parse_args(words)


def test_every_command_is_shown_with_its_options():
    for name, parser in commands(build_parser()):
        _, _, section = TEXT["docs/cli.md"].partition(f"## {name}\n")
        section = section.partition("\n## ")[0]
        for action in parser._actions:
            if action.dest != "help":
                assert (action.option_strings or [action.metavar or action.dest])[0] in section


@pytest.mark.service
def test_the_request_by_curl_is_answered(shipped):
    (line,) = re.findall(r"curl -s (\S+) -d '(.*?)'", TEXT["docs/wire.md"], re.DOTALL)
    with urllib.request.urlopen(f"http://{at(shipped, line[0])}", line[1].encode()) as answer:
        assert json.load(answer)["outputs"][0]["data"] == [-1, -1]


@pytest.mark.parametrize("document", TEXT)
def test_links_lead_somewhere(document):
    page = (ROOT / document).parent
    for link in LINK.findall(TEXT[document]):
        if link.startswith("https://"):
            continue
        file, _, heading = link.partition("#")
        target = (page / file).resolve() if file else ROOT / document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {anchor(h) for h in headings}, link


def anchor(heading: str) -> str:
    """Return what a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", TEXT)
def test_nothing_is_left_over(document):
    assert FORBIDDEN.findall(TEXT[document]) == []


def test_what_was_measured_is_the_shipped_bundle():
    assert measured(PHYSICS)["bundle"]["digest"] == read_bundle("hl-lhc").digest(), (
        "run: make physics"
    )
    for name, found in measured(FOUND)["bundles"].items():
        assert found["digest"] == read_bundle(name).digest(), "run: make real"


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {t for text in TEXT.values() for t in re.findall(r"`?make (\w+)`", text)}
    assert named
    assert named <= set(targets)


def test_every_key_of_a_bundle_is_described():
    section = TEXT["docs/bundle.md"].partition("## bundle.toml")[2].partition("\n## ")[0]
    table = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    source = (ROOT / "src/trackserve/bundle/__init__.py").read_text(encoding="utf-8")
    read = set(re.findall(r'\b(?:get|number)\(\s*"([\w.]+)"', source))
    read |= {f"neighbours.cuts.{name}" for name in ("slope", "z0", "dphi", "dcot")}
    read |= {f"triplets.cuts.{name}" for name in ("kink", "off", "slope", "dphi")}
    read = read - {"extent"} | {f"extent.{name}" for name in ("r", "z")}
    assert len(read) > 12
    assert read == table


def test_every_parameter_of_a_model_is_described():
    for name in Description.__dataclass_fields__:
        assert f"`{name}`" in TEXT["docs/wire.md"]


def test_the_recipe_in_the_docs_is_one(tmp_path):
    (code,) = blocks("docs/training.md", "toml")
    (tmp_path / "recipe.toml").write_text(code)
    assert read_recipe(tmp_path / "recipe.toml").gnn.width == 64
    assert RECIPE.keys() == {name for name, _ in settings(read_recipe("hl-lhc"))}


def test_exported_networks_make_a_bundle(exported):
    (code,) = blocks("docs/own-networks.md", "toml")
    assert tomllib.loads(code) | {"detector": "trackml"} == tomllib.loads(
        (exported / "bundle.toml").read_text()
    )
    hits = straight_tracks(tracks=20)
    assert len(ReferencePipeline(read_bundle(exported)).find_tracks(hits).labels) == len(hits)
    assert {p.stem for p in exported.glob("*.onnx")} == set(NETWORKS)
