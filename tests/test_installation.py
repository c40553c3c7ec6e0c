"""What an installation reports about itself, here and where something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from trackserve import __version__
from trackserve.bundle import read_bundle
from trackserve.cli import main
from trackserve.engines.native.abi import built
from trackserve.engines.native.library import library

ROOT = Path(__file__).parents[1]


def lines(text: str) -> dict[str, str]:
    """What is printed, by its name."""
    return dict(line.split("  ", maxsplit=1) for line in text.splitlines())


def test_it_tells_engines_bundles_and_parts(capsys):
    assert main(["info"]) == 0
    printed = {name: text.strip() for name, text in lines(capsys.readouterr().out).items()}
    assert printed["version"].startswith(f"{__version__} in ")
    assert printed["engine reference"] == f"onnxruntime {metadata.version('onnxruntime')}"
    chosen = library()
    assert printed["engine native"].startswith(
        f"{chosen.variant} ({', '.join(chosen.precisions())})"
    )
    assert all(variant in printed["engine native"] for variant in built())
    assert printed["bundle trackml"].startswith(read_bundle().digest())
    assert f"tritonclient {metadata.version('tritonclient')}" in printed["part client"]
    assert ("avx2" in printed["processor"]) == (library().variant != "portable")


def test_a_missing_package_is_told_with_what_installs_it(capsys, monkeypatch):
    version = metadata.version

    def without_onnxscript(name: str) -> str:
        if name == "onnxscript":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_onnxscript)
    main(["info"])
    train = lines(capsys.readouterr().out)["part train"]
    assert train.endswith("missing onnxscript: pip install 'trackserve[train]'")


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    """The package installed from its sources where no compiler is present."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "native"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info")
    )
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-compile", "--target", target, source],
        check=True,
        capture_output=True,
        env={**os.environ, "CC": "no-compiler", "CXX": "no-compiler"},
    )
    return target


def test_without_a_compiler_it_installs_and_the_reference_serves(without_compiler):
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "trackserve.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(without_compiler)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = lines(run("info"))
    assert str(without_compiler) in printed["version"]
    assert "is not installed" in printed["engine native"]
    assert "C++20 compiler" in printed["engine native"]
    assert run("bundle", "check").endswith(f": valid, digest {read_bundle().digest()}\n")
