"""The command line: what it prints and writes, and one sentence with the right status where it fails."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny_bundle import write_tiny_bundle
from trackserve.cli import build_parser, main
from trackserve.cli.evaluate import run
from trackserve.data import find_events
from trackserve.engines.native import variants
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import MissingDependencyError

# The tiny bundle's networks are none that the native engine knows.
pytestmark = pytest.mark.filterwarnings("ignore:the reference engine runs")
EVENT = Path(__file__).parents[1] / "examples/events/pu20"
COMMANDS = (
    *("serve", "fleet", "roll", "status", "repository", "find", "evaluate"),
    *("simulate", "train", "bundle", "info"),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The first thousand hits of the shipped event, plain, with their truth."""
    (source,) = find_events(EVENT)
    folder = tmp_path_factory.mktemp("small")
    tables = {name: source.file(name).read().decode().splitlines() for name in source.tables}
    kept = {line.split(",")[0] for line in tables["hits"][1:1001]}
    for name, (header, *lines) in tables.items():
        if name != "particles":
            lines = [line for line in lines if line.split(",")[0] in kept]  # noqa: PLW2901
        (folder / f"event000000020-{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture
def damaged(small, tmp_path) -> Path:
    return shutil.copytree(small, tmp_path / "damaged")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("b") / "bundle", radius=0.1, seed=13).path


def refusal(capsys, *arguments: object, status: int = 2) -> str:
    """Run a command that fails, and return its one sentence."""
    assert main([str(a) for a in arguments]) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("trackserve ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def found(path: Path) -> np.ndarray:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        header, *rows = csv.reader(file)
    assert header == ["event_id", "hit_id", "track_id"]
    return np.array(rows, np.int64)


# ---- help


@pytest.mark.parametrize(
    "arguments", [(), *((c,) for c in COMMANDS), ("bundle", "show"), ("bundle", "check")]
)
def test_every_command_has_help(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*arguments, "--help"])
    assert raised.value.code == 0
    assert "usage: trackserve" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["fnd"], ["find"], ["train", "data"], ["find", "a", "--local", "--server", "b:1"]],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: trackserve" in capsys.readouterr().err


def test_a_mistyped_option_is_met_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["find", "a", "--budle", "hl-lhc"])
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert "find does not know: --budle hl-lhc; is it --bundle? `trackserve find --help`" in said


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("trackserve ")


def test_an_acts_job_without_acts_names_the_extra(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("trackserve.acts")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "acts", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trackserve\[acts\]'"):
        importlib.import_module("trackserve.acts")


# ---- find


def test_find_writes_the_labels_of_the_pipeline(small, bundle, tmp_path):
    output = tmp_path / "tracks.csv"
    assert main(["find", str(small), "--local", "--bundle", str(bundle), "-o", str(output)]) == 0
    (source,) = find_events(small)
    hits = source.read().hits
    from trackserve.bundle import read_bundle

    labels = ReferencePipeline(read_bundle(bundle)).find_tracks(hits).labels
    assert labels.max() > 0
    expected = np.stack([np.full(1000, 20), hits.hit_id, labels], axis=1)
    np.testing.assert_array_equal(found(output), expected)
    assert list(tmp_path.iterdir()) == [output]


def test_find_to_gzip_and_to_the_output(small, bundle, tmp_path, capsys):
    plain, packed = tmp_path / "tracks.csv", tmp_path / "tracks.csv.gz"
    for output in (plain, packed):
        assert (
            main(["find", str(small), "--local", "--bundle", str(bundle), "-o", str(output)]) == 0
        )
    np.testing.assert_array_equal(found(packed), found(plain))
    capsys.readouterr()
    assert main(["find", str(small), "--local", "--bundle", str(bundle)]) == 0
    assert capsys.readouterr().out == plain.read_text()


@pytest.mark.service
def test_find_gives_the_same_file_from_a_server_as_in_process(small, tiny_bundle, url, tmp_path):
    served, local = tmp_path / "served.csv", tmp_path / "local.csv"
    assert main(["find", str(small), "--server", url, "-o", str(served)]) == 0
    assert (
        main(["find", str(small), "--local", "--bundle", str(tiny_bundle.path), "-o", str(local)])
        == 0
    )
    assert served.read_text() == local.read_text()


@pytest.mark.service
def test_find_writes_the_same_file_with_several_events_in_flight(small, server, tmp_path, capsys):
    folder, alone, together = tmp_path / "events", tmp_path / "alone.csv", tmp_path / "together.csv"
    folder.mkdir()
    (source,) = find_events(small)
    for number in range(12):
        for file in small.iterdir():
            name = file.name.replace(f"{source.event_id:09d}", f"{number:09d}")
            (folder / name).write_bytes(file.read_bytes())
    find = ["find", str(folder), "--server", server.grpc_url]
    assert main([*find, "-o", str(alone)]) == 0
    assert main([*find, "--concurrency", "5", "-o", str(together)]) == 0
    assert together.read_text() == alone.read_text()
    assert "concurrency is 0" in refusal(capsys, *find, "--concurrency", 0, "-o", together)
    local = ("find", small, "--local", "--concurrency", 2)
    assert "--concurrency needs --server" in refusal(capsys, *local)


def test_find_reads_cells_only_where_a_feature_needs_them(damaged, bundle, tmp_path, capsys):
    (damaged / "event000000020-cells.csv").write_text("garbled")
    arguments = ["find", str(damaged), "--local", "-o", str(tmp_path / "tracks.csv"), "--bundle"]
    assert main([*arguments, str(bundle)]) == 0
    needy = write_tiny_bundle(tmp_path / "needy", features=12).path
    assert "event000000020-cells.csv" in refusal(capsys, *arguments, needy)
    # Without cells, the bundle's values for absent columns are taken.
    (damaged / "event000000020-cells.csv").unlink()
    assert main([*arguments, str(needy)]) == 0


def test_a_failed_find_leaves_the_old_file(small, damaged, bundle, tmp_path, capsys):
    output = tmp_path / "tracks.csv"
    output.write_text("old")
    hits = damaged / "event000000020-hits.csv"
    hits.write_text(hits.read_text()[:-20])
    refusal(capsys, "find", damaged, "--local", "--bundle", bundle, "-o", output)
    assert output.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not variants(), reason="needs the native engine")
def test_a_warning_is_one_sentence(bundle, small, tmp_path):
    command = [sys.executable, "-m", "trackserve.cli", "find", str(small), "--local"]
    how = ("--engine", "native", "--bundle", str(bundle), "-o", str(tmp_path / "t.csv"))
    done = subprocess.run([*command, *how], capture_output=True, text=True, check=True)
    said = done.stderr.splitlines()
    assert len(said) == len(list(bundle.glob("*.onnx")))
    assert all(line.startswith("trackserve: the reference engine runs ") for line in said)


def test_find_stops_quietly_when_its_reader_has_seen_enough(small, bundle):
    command = [sys.executable, "-m", "trackserve.cli", "find", str(small), "--local"]
    how = ("--engine", "reference", "--bundle", str(bundle))
    process = subprocess.Popen([*command, *how], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, b"")


# ---- bad input


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        ("hits", lambda t: t[:-20], "hits.csv row 1000"),
        ("hits", lambda t: t.replace(",", ";"), "hits.csv has no column hit_id"),
        ("hits", lambda _: "", "hits.csv is empty; expected a header with the columns hit_id"),
        ("hits", lambda t: t + t.splitlines()[5] + "\n", "row 1001: hit_id"),
        ("hits", lambda t: t.replace("\n", "\n1,nan,0,0,7,2,1\n", 1), "row 1: x is nan"),
        ("truth", None, "has no truth file; it has cells, hits, particles"),
        ("particles", None, "has no particles file; it has cells, hits, truth"),
        ("hits", None, "has no "),
    ],
)
def test_an_event_that_cannot_be_read(damaged, bundle, capsys, table, change, reason):  # noqa: PLR0917
    path = damaged / f"event000000020-{table}.csv"
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    assert reason in refusal(capsys, "evaluate", damaged, "--bundle", bundle)


def test_no_events(tmp_path, bundle, capsys):
    assert "holds no events" in refusal(capsys, "find", tmp_path, "--local", "--bundle", bundle)
    nowhere = tmp_path / "event000000001"
    assert "holds no events" in refusal(capsys, "find", nowhere, "--local", "--bundle", bundle)


def test_events_of_one_number_cannot_share_a_file(small, damaged, bundle, capsys):
    message = refusal(capsys, "find", small, damaged, "--local", "--bundle", bundle)
    assert "have the same number; a file of tracks cannot distinguish them" in message


def test_a_bundle_s_folder_is_not_asked_of_a_server(small, bundle, capsys):
    judge = ("evaluate", small, "--server", "localhost:1")
    for command in (("find", small), judge):
        message = refusal(capsys, *command, "--bundle", bundle)
        assert "is a folder, which needs the pipeline in process" in message


def test_options_that_would_say_nothing_are_refused(small, tmp_path, capsys):
    find = ("find", small, "--engine", "native")
    assert "--engine needs --local; a server uses its own" in refusal(capsys, *find)
    judge = ("evaluate", small, "--server", "localhost:1", "--threads", 2)
    assert "--threads needs the pipeline in process" in refusal(capsys, *judge)
    load = ("bench", "localhost:1", small, "--engine", "native")
    assert "--engine needs --check local" in refusal(capsys, *load)


@pytest.mark.parametrize(
    "arguments", [("find", "-o"), ("evaluate", "--json"), ("bench", "localhost:1", "--json")]
)
def test_where_a_result_can_not_be_written_is_said_before_the_work(
    arguments, small, tmp_path, capsys
):
    command, *rest, option = arguments
    absent = tmp_path / "absent/file"
    message = refusal(capsys, command, *rest, small, option, absent)
    assert message.endswith(
        f"folder {absent.parent} does not exist; create it, or write file elsewhere"
    )
    assert f"{tmp_path} is a folder" in refusal(capsys, command, *rest, small, option, tmp_path)


def test_an_unreachable_server(small, capsys):
    with socket.socket() as held:  # bound and not listening: nobody answers
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        for scheme in ("grpc", "http"):
            url = f"{scheme}://127.0.0.1:{port}"
            message = refusal(capsys, "find", small, "--server", url, status=1)
            assert f"nothing listens at {url}; start a server with `trackserve serve`" in message
    assert "expected host:port" in refusal(capsys, "find", small, "--server", "example.org")


def test_a_port_in_use(bundle, capsys):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        message = refusal(capsys, "serve", "--bundle", bundle, "--grpc-port", port, status=1)
    assert f"the grpc port {port} on 127.0.0.1 can't be used: Address already in use" in message


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--instances", "many"], "--instances many: expected a whole number, or MODEL=NUMBER"),
        (["--instances", "gnn=²"], "--instances gnn=²: expected a whole number"),
        (["--instances", "gnn=2"], "model in instances is 'gnn'; expected one of pipeline"),
        (["--threads", "0"], "threads of pipeline is 0; expected at least 1"),
        (["--networks", "onnxruntime"], "choose the ensemble for onnxruntime"),
        (["--max-hits", "0"], "max_hits is 0; expected at least 1"),
    ],
)
def test_settings_that_make_no_sense(bundle, tmp_path, capsys, option, reason):
    arguments = ["repository", "--bundle", bundle, "-o", tmp_path / "models", *option]
    assert reason in refusal(capsys, *arguments)


def test_repository_is_written(bundle, tmp_path, capsys):
    folder = tmp_path / "models"
    options = ["--shape", "ensemble", "--instances", "2", "--instances", "gnn=3"]
    assert main(["repository", "--bundle", str(bundle), "-o", str(folder), *options]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    for model, count in (("gnn", 3), ("filter", 2)):
        assert f"count: {count}" in (folder / model / "config.pbtxt").read_text()


# ---- evaluate


def test_evaluate_judges_a_file_as_it_judges_the_pipeline(small, bundle, tmp_path, capsys):
    tracks = tmp_path / "tracks.csv.gz"
    main(["find", str(small), "--local", "--bundle", str(bundle), "-o", str(tracks)])
    results = []
    for where in (["--bundle", bundle], ["--tracks", tracks]):
        output = tmp_path / "result.json"
        assert main(["evaluate", str(small), *map(str, where), "--json", str(output)]) == 0
        results.append(json.loads(output.read_text()))
        assert "efficiency" in capsys.readouterr().out
    whole, of_file = results
    assert of_file["stages"] == {}
    assert {"neighbours", "filter", "gnn"} == whole["stages"].keys()
    for name in ("events", "hits", "tracks", "fake_rate", "duplicate_rate", "trackml_score"):
        assert of_file[name] == whole[name]
    assert of_file["strict"]["efficiency"] == whole["strict"]["efficiency"]
    assert whole["tracks"] > 5
    assert not list(tmp_path.glob(".*"))


@pytest.mark.service
def test_evaluate_judges_a_server_as_it_judges_the_pipeline(small, tiny_bundle, url, tmp_path):
    results = []
    for where in (["--bundle", str(tiny_bundle.path)], ["--server", url]):
        output = tmp_path / "result.json"
        assert main(["evaluate", str(small), *where, "--json", str(output)]) == 0
        results.append(json.loads(output.read_text()))
    assert results[0]["trackml_score"] == results[1]["trackml_score"]
    assert results[0]["fake_rate"] == results[1]["fake_rate"]


def test_evaluate_tells_of_hits_that_a_file_lacks(small, bundle, tmp_path, capsys):
    tracks = tmp_path / "tracks.csv"
    main(["find", str(small), "--local", "--bundle", str(bundle), "-o", str(tracks)])
    tracks.write_text("".join(tracks.read_text().splitlines(keepends=True)[:-7]))
    assert main(["evaluate", str(small), "--tracks", str(tracks)]) == 0
    assert f"{tracks} lacks 7 hits: they are on no track" in capsys.readouterr().err


def test_tracks_come_from_one_place(small, bundle, tmp_path, capsys):
    arguments = ["evaluate", small, "--bundle", bundle, "--tracks", tmp_path / "tracks.csv"]
    assert "--bundle and --tracks exclude each other" in refusal(capsys, *arguments)
    arguments = ["evaluate", small, "--tracks", tmp_path / "tracks.csv"]
    assert "tracks.csv cannot be read: there is no such file" in refusal(capsys, *arguments)


def test_evaluate_draws_plots(small, bundle, tmp_path, capsys):
    assert (
        main(["evaluate", str(small), "--bundle", str(bundle), "--plots", str(tmp_path / "p")]) == 0
    )
    written = [line for line in capsys.readouterr().out.splitlines() if line.endswith(".png")]
    assert written
    assert all(Path(line).is_file() for line in written)


def test_evaluate_writes_its_files_before_a_reader_has_seen_enough(
    small, bundle, tmp_path, monkeypatch
):
    def closed(*_: object) -> None:
        raise BrokenPipeError

    tracks, output = tmp_path / "tracks.csv", tmp_path / "all.json"
    main(["find", str(small), "--local", "--bundle", str(bundle), "-o", str(tracks)])
    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        run(
            build_parser().parse_args(
                ["evaluate", str(small), "--tracks", str(tracks), "--json", str(output)]
            )
        )
    assert json.loads(output.read_text())["events"] == 1


# ---- bundle, train, simulate


def test_bundle_show_and_check(bundle, capsys):
    assert main(["bundle", "show", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith((bundle / "bundle.toml").read_text())
    digest = shown.splitlines()[0].split()[-1]
    assert main(["bundle", "check", str(bundle)]) == 0
    assert capsys.readouterr().out == f"{bundle}: valid, digest {digest}\n"


def test_a_bundle_that_is_broken(bundle, tmp_path, capsys):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "filter.onnx").unlink()
    assert "filter.onnx is missing" in refusal(capsys, "bundle", "check", broken)


def test_train_refuses_a_recipe_before_it_starts(small, tmp_path, capsys):
    arguments = ["train", small, "-o", tmp_path / "bundle", "--recipe", "atlas"]
    assert "no recipe 'atlas'" in refusal(capsys, *arguments)
    arguments[-1] = "trackml"
    assert "has 1 events; training needs at least three" in refusal(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_simulate_refuses_what_makes_no_sense(tmp_path, capsys):
    arguments = ["simulate", "--pileup", "-3", "--events", "1", "--seed", "1", "-o", tmp_path / "e"]
    assert "pileup is -3.0; expected a number from 0 to 1000" in refusal(capsys, *arguments)


# ---- a smaller installation


def test_find_with_a_server_needs_the_base_installation_only(small):
    """All but the base installation's packages are kept from being imported."""
    code = f"""
import sys
for name in ("scipy", "onnx", "onnxruntime", "torch", "matplotlib", "pyarrow", "acts"):
    sys.modules[name] = None
from trackserve.cli import main
sys.exit(main(["find", {str(small)!r}, "--server", "127.0.0.1:9"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.returncode == 1, run.stderr
    assert "nothing listens at 127.0.0.1:9" in run.stderr


def test_a_missing_extra_is_named(small, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("trackserve.pipeline")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "trackserve.bundle")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'trackserve[engines]'" in refusal(capsys, "find", small, "--local")


@pytest.fixture
def one_bad_event(tmp_path):
    """Three events, of which the second has a hit at nan."""
    hits = "hit_id,x,y,z\n1,30,1,5\n2,70,2,9\n"
    for number, text in ((1, hits), (2, hits.replace("70", "nan")), (3, hits)):
        (tmp_path / f"event{number:09d}-hits.csv").write_text(text)
    return tmp_path


def test_find_keeps_what_it_found_before_an_event_that_fails(one_bad_event, capsys):
    output = one_bad_event / "tracks.csv"
    message = refusal(capsys, "find", one_bad_event, "--local", "-o", output)
    assert "row 2: x is nan" in message
    assert "the tracks of the 1 events before it are written" in message
    assert np.loadtxt(output, delimiter=",", skiprows=1)[:, 0].tolist() == [1, 1]


def test_find_goes_on_after_an_event_that_fails_if_asked(one_bad_event, capsys):
    output = one_bad_event / "tracks.csv"
    assert main(["find", str(one_bad_event), "--local", "--keep-going", "-o", str(output)]) == 1
    errors = capsys.readouterr().err
    assert "event 2: " in errors
    assert "1 of 3 events failed: 2" in errors
    assert np.loadtxt(output, delimiter=",", skiprows=1)[:, 0].tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_written_file(small, tmp_path, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "trackserve.cli", "find", small, "--server", url]
        program = subprocess.Popen([*command, "-o", tmp_path / "tracks.csv"])
        kept, _ = silent.accept()
        assert list(tmp_path.iterdir())
        program.send_signal(number)
        assert program.wait(30) == 128 + number
        kept.close()
    assert not list(tmp_path.iterdir())


def test_find_writes_to_standard_output_for_a_dash(one_bad_event, capsys, monkeypatch):
    monkeypatch.chdir(one_bad_event)
    assert main(["find", "event000000001", "--local", "-o", "-"]) == 0
    assert capsys.readouterr().out == "event_id,hit_id,track_id\n1,1,-1\n1,2,-1\n"
    assert not (one_bad_event / "-").exists()
