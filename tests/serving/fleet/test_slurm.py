"""The job script for Slurm: bash that parses, options that the commands take, addresses that come and go."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from trackserve.cli import build_parser, main
from trackserve.errors import InputError, ServerError
from trackserve.serving.fleet import registered as module
from trackserve.serving.fleet.registered import registered
from trackserve.serving.fleet.slurm import Job, submit

if TYPE_CHECKING:
    from pathlib import Path


def script(tmp_path: Path, *more: str) -> str:
    path = tmp_path / "job.sh"
    command = ["slurm", "--nodes", "3", "--cpus", "8", "--time", "1-02:00:00", "-o", str(path)]
    assert main([*command, "--folder", str(tmp_path / "a b"), *more]) == 0
    subprocess.run(["bash", "-n", path], check=True)
    return path.read_text()


def command(text: str, name: str) -> list[str]:
    """The words of a command of ours in a script, without its redirections."""
    joined = text.replace("\\\n", " ")
    (line,) = re.findall(
        rf"trackserve\.cli {name} (.*?)(?: > .*)?(?: 2>&1)? &$", joined, re.MULTILINE
    )
    return [name, *shlex.split(line)]


def test_a_script_starts_servers_and_a_front_with_the_same_options(tmp_path):
    tokens = tmp_path / "tokens.toml"
    text = script(tmp_path, "--tokens", str(tokens), "--sbatch=--partition=long", "--",
                  "--instances", "8", "--bundle", "/some where/bundle")  # fmt: skip
    for line in ("--nodes=3", "--time=1-02:00:00", "--signal=B:TERM@120", "--partition=long"):
        assert f"#SBATCH {line}\n" in text
    parser = build_parser()
    server, front = (parser.parse_args(command(text, name)) for name in ("serve", "front"))
    for options in (server, front):
        assert options.instances == ["8"]
        assert options.bundle == ["/some where/bundle"]
    # Clients show their tokens at the front, and the front its own to the servers.
    assert front.tokens == tokens
    assert str(server.tokens) == "$folder/tokens.toml"
    assert str(front.server_token) == "$folder/token"
    assert str(server.register) == str(front.servers) == "$folder/servers"
    assert server.certificate is None


def test_tls_between_the_nodes(tmp_path):
    files = [f"--{name}={tmp_path / name}" for name in ("certificate", "key", "server-ca")]
    text = script(tmp_path, *files)
    server, front = (build_parser().parse_args(command(text, name)) for name in ("serve", "front"))
    assert server.certificate == front.certificate == tmp_path / "certificate"
    assert front.server_ca == tmp_path / "server-ca"


def test_a_job_that_joins_another_has_no_front(tmp_path):
    (tmp_path / "7/servers").mkdir(parents=True)
    text = script(tmp_path, "--join", str(tmp_path / "7"))
    assert "trackserve.cli front" not in text
    assert f"folder={tmp_path / '7'}\n" in text
    assert build_parser().parse_args(command(text, "serve")).register


def test_jobs_that_cannot_be(tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="nodes is 0; expected at least 1"):
        Job(0, 1, "1:00:00", tmp_path)
    with pytest.raises(InputError, match="'an hour' is not one of Slurm"):
        Job(1, 1, "an hour", tmp_path)
    wrong = ["slurm", "--nodes", "1", "--cpus", "1", "--time", "1:00:00", "-o", str(tmp_path / "j")]
    assert main([*wrong, "--join", str(tmp_path)]) == 2
    assert "is not the folder of a job that runs" in capsys.readouterr().err
    assert main([*wrong, "--server-ca", "x"]) == 2
    assert "needs their certificate and key" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="sbatch was not found"):
        submit("")


def test_an_address_is_in_its_file_while_the_server_takes_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEEN_SECONDS", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "node7")
    with registered(tmp_path / "servers", "0.0.0.0", 8123):
        (file,) = (tmp_path / "servers").iterdir()
        assert file.read_text() == "node7:8123\n"
        assert file.name == "42-node7-8123"  # the script removes those of its job
    assert not list((tmp_path / "servers").iterdir())
    with registered(tmp_path / "servers", "10.0.0.7", 8123):
        (file,) = (tmp_path / "servers").iterdir()
        assert file.read_text() == "10.0.0.7:8123\n"
    with registered(tmp_path / "servers", "fd00::7", 8123):
        (file,) = (tmp_path / "servers").iterdir()
        assert file.read_text() == "[fd00::7]:8123\n"
    with registered(None, "127.0.0.1", 1):
        pass
