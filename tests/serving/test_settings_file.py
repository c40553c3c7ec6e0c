from __future__ import annotations

import pytest

from trackserve.bundle import read_bundle
from trackserve.cli import build_parser
from trackserve.cli.settings import chosen_settings
from trackserve.engines.native import variants
from trackserve.engines.registry import fastest, open_pipeline
from trackserve.errors import InputError
from trackserve.serving.settings import Settings
from trackserve.serving.settings_file import read_settings, write_settings


def test_settings_come_back(tmp_path):
    settings = Settings(engine="native", instances={"pipeline": 2}, queue_timeout=2.5)
    write_settings(settings, tmp_path / "s.toml", "why\nthese")
    assert read_settings(tmp_path / "s.toml") == settings
    assert (tmp_path / "s.toml").read_text().startswith("# why\n# these\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shape = ", "not TOML"),
        ("shapes = 'monolith'", "shapes"),
        ("shape = 'pyramid'", "pyramid"),
        ("max_queue = 'many'", "max_queue"),
        ("max_queue = true", "max_queue"),
        ("[instances]\npipeline = 1.5", "instances"),
        ("queue_timeout = 'long'", "a number"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, says):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_settings(tmp_path / "s.toml")


def test_options_after_the_file_override_it(tmp_path, capsys):
    write_settings(
        Settings(engine="native", max_queue=3, instances={"pipeline": 2}), tmp_path / "s.toml"
    )
    parse = build_parser().parse_args
    options = ["serve", "--settings", str(tmp_path / "s.toml"), "--max-queue", "64"]
    found = chosen_settings(parse([*options, "--threads", "2"]))
    assert found == Settings(
        engine="native", max_queue=64, instances={"pipeline": 2}, threads={"pipeline": 2}
    )
    with pytest.raises(SystemExit):
        parse(["serve", "--settings", str(tmp_path / "none.toml")])
    assert "none.toml" in capsys.readouterr().err


def test_the_fastest_engine_serves_unless_one_is_named():
    parse = build_parser().parse_args
    assert fastest() == ("native" if variants() else "reference")
    assert chosen_settings(parse(["serve"])).engine == fastest()
    assert chosen_settings(parse(["serve", "--engine", "reference"])).engine == "reference"
    assert chosen_settings(parse(["serve", "--shape", "ensemble"])).engine == "reference"
    assert type(open_pipeline(read_bundle())) is type(
        open_pipeline(read_bundle(), engine=fastest())
    )
