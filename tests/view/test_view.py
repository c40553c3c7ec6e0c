"""The event display: what the page is given, the page itself in a browser, and the two commands."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import threading
import tomllib
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tomli_w

import trackserve
from trackserve.cli import main
from trackserve.data import find_events
from trackserve.errors import InputError, ServerError
from trackserve.event import Event, Hits, Modules, Particles, Tracks, Truth
from trackserve.track_table import TRACK_COLUMNS, TrackTable
from trackserve.view.live import LiveDisplay
from trackserve.view.page import event_page
from trackserve.view.phoenix import phoenix_events
from trackserve.view.scene import MATCHED, NOT_MATCHED, TOO_SHORT, pack_scene, unpack_scene

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLES = Path(trackserve.__file__).parent / "bundles"
SMALL = Path(__file__).parents[2] / "examples/events/pu20"


def tiny() -> tuple[Event, Tracks]:
    """Ten hits along a line: a right track, one of two particles, one of two hits, a missed particle."""
    x = np.array([10, 30, 20, 40, 10, 20, 30, 10, 20, 30], np.float32)
    ids = np.full(10, 8, np.int32)
    hits = Hits(
        hit_id=np.arange(100, 110),
        x=x,
        y=np.zeros(10, np.float32),
        z=np.linspace(-5, 5, 10).astype(np.float32),
        modules=Modules(ids, np.repeat([2, 4], 5).astype(np.int32), ids),
    )
    number = np.zeros(4)
    particles = Particles(
        particle_id=np.array([7, 8, 9, 5]),
        vx=number + 3,
        vy=number + 4,
        vz=number,
        px=np.array([3.0, 1, 1, 2]),
        py=np.array([4.0, 0, 0, 0]),
        pz=number,
        q=number + 1,
        primary=np.ones(4, np.bool_),
    )
    truth = Truth(np.array([7, 7, 7, 7, 8, 9, 0, 5, 5, 5]), np.full(10, 0.1), particles)
    return Event(3, hits, truth), Tracks(np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1]))


def table_of(tracks: int) -> TrackTable:
    """Fitted parameters, all different; the last track could not be fitted."""
    matrix = np.linspace(0.5, 0.9, tracks * len(TRACK_COLUMNS), dtype=np.float32)
    matrix = matrix.reshape(tracks, len(TRACK_COLUMNS))
    matrix[-1] = np.nan
    return TrackTable.from_matrix(matrix)


def test_page_is_given_tracks_outwards_and_the_verdict_on_each() -> None:
    header, columns = unpack_scene(pack_scene("a name", *tiny()))
    assert header["name"] == "a name"
    assert not header["fitted"]
    assert columns["track_rows"].tolist() == [0, 2, 1, 3, 4, 5, 6, 7, 8]
    assert columns["track_verdict"].tolist() == [MATCHED, NOT_MATCHED, TOO_SHORT]
    assert columns["track_particle"][0] == 0
    assert columns["track_shared"].tolist() == [4, 1, -1]
    assert columns["track_hits"].tolist() == [4, 3, 2]
    assert columns["particle_hits"].tolist() == [4, 1, 1, 3]
    assert columns["particle_found"].tolist() == [1, 0, 0, 0]
    assert columns["particle_pt"][0] == 5
    assert columns["particle_radius"].tolist() == [5, 5, 5, 5]
    assert columns["hit_id"].tolist() == list(range(100, 110))
    assert columns["particle_rows"].tolist() == [0, 2, 1, 3, 4, 5, 7, 8, 9]


def test_layers_are_found_among_the_hits() -> None:
    rng = np.random.default_rng(1)
    phi, z = rng.uniform(0, 6, 200), np.append(rng.uniform(-400, 400, 100), np.full(100, 600.0))
    r = np.append(np.full(100, 72.0), rng.uniform(30, 170, 100))
    ids = np.repeat([8, 9], 100).astype(np.int32)
    hits = Hits(
        np.arange(200), *np.stack([r * np.cos(phi), r * np.sin(phi), z]).astype(np.float32), Modules(ids, ids, ids)
    )  # fmt: skip
    event = Event(0, hits)
    header, columns = unpack_scene(pack_scene("", event, Tracks(np.full(200, -1))))
    barrel, end = header["layers"]
    assert barrel["r"] == pytest.approx(72, abs=0.1)
    assert barrel["low"] < -350
    assert barrel["high"] > 350
    assert end["z"] == 600
    assert 30 <= end["inner"] < 40
    assert "particle_pt" not in columns


def test_fitted_tracks_bring_their_parameters() -> None:
    event, tracks = tiny()
    table = table_of(3)
    header, columns = unpack_scene(pack_scene("", event, Tracks(tracks.labels, table)))
    assert header["fitted"]
    for name in ("pt", "eta", "d0", "z0", "quality"):
        assert np.array_equal(columns[f"track_{name}"], getattr(table, name), equal_nan=True)


def test_labels_of_another_event_are_refused() -> None:
    event, _ = tiny()
    with pytest.raises(InputError, match="2 labels for 10 hits"):
        pack_scene("", event, Tracks(np.array([0, 0])))


def test_page_needs_nothing_else() -> None:
    page = event_page([pack_scene("one", *tiny())])
    beyond = re.sub(r'data:text/javascript;base64,[^"]+', "", page)
    assert not re.search(r"(src|href)\s*=|https?://", beyond)
    for place in ("/* STYLE */", "{ MODULES }", "/* SCRIPT */", "<!-- EVENTS -->"):
        assert place not in page
    assert page.count('class="event"') == 1


def test_name_of_an_event_can_not_end_the_script() -> None:
    assert "</script><b>" not in event_page(live=["</script><b>"])


def test_phoenix_gets_hits_tracks_and_momenta() -> None:
    event, tracks = tiny()
    table = table_of(3)
    loaded = json.loads(json.dumps(phoenix_events([(event, Tracks(tracks.labels, table))])))
    (content,) = loaded.values()
    assert content["event number"] == 3
    assert len(content["Hits"]["Hits"]) == 10
    first = content["Tracks"]["Tracks"][0]
    assert [x for x, _, _ in first["pos"]] == [10, 20, 30, 40]
    d0, z0, phi, theta, q_over_p = first["dparams"]
    assert d0 == pytest.approx(float(table.d0[0]))
    assert z0 == pytest.approx(float(table.z0[0]))
    assert phi == pytest.approx(float(table.phi[0]))
    assert -np.log(np.tan(theta / 2)) == pytest.approx(float(table.eta[0]), abs=1e-5)
    momentum = 1000 * float(table.pt[0]) * np.cosh(float(table.eta[0]))
    assert q_over_p == pytest.approx(float(table.charge[0]) / momentum, rel=1e-4)


@contextmanager
def shown(display: LiveDisplay) -> Iterator[str]:
    """Serve a live display in a thread and yield its address."""
    with display:
        thread = threading.Thread(target=display.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield display.url
        finally:
            display.shutdown()
            thread.join()


def block_of(index: int) -> bytes:
    if index == 1:
        message = "the server has gone"
        raise ServerError(message)
    return pack_scene(f"event {index}", *tiny())


def read(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_live_display_refuses_a_port_that_is_none() -> None:
    with pytest.raises(InputError, match=r"can't listen on port 99999: .*0-65535"):
        LiveDisplay(["event 0"], block_of, 99999)


def test_live_display_answers_this_machine_alone() -> None:
    with shown(LiveDisplay(["event 0", "event 1"], block_of)) as url:
        status, page = read(url)
        assert status == 200
        assert b'["event 0", "event 1"]' in page
        status, block = read(url + "events/0")
        assert unpack_scene(block)[0]["name"] == "event 0"
        assert read(url + "events/1") == (500, b"the server has gone")
        assert [read(url + path)[0] for path in ("events/2", "events/-1", "other")] == [404] * 3
        assert read(url, Host="elsewhere.org:80")[0] == 403
        with pytest.raises(InputError, match="can't listen on port"):
            LiveDisplay([], block_of, int(url.rstrip("/").rpartition(":")[2]))


def test_commands_write_pictures_pages_and_events_for_phoenix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (source,) = find_events(SMALL)
    hits = source.read(truth=False).hits
    tracks = tmp_path / "tracks.csv"
    rows = "".join(f"{source.event_id},{hit},{-1 + (n < 9)}\n" for n, hit in enumerate(hits.hit_id))
    tracks.write_text("event_id,hit_id,track_id\n" + rows)
    given = [str(SMALL), "--tracks", str(tracks)]
    for command, name in (("draw", "a.png"), ("view", "a.html"), ("view", "a.json")):
        assert main([command, *given, "-o", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / f"a.{s}") for s in ("png", "html", "json")
    ]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert 'class="event"' in (tmp_path / "a.html").read_text()
    (event,) = json.loads((tmp_path / "a.json").read_text()).values()
    assert len(event["Tracks"]["Tracks"][0]["pos"]) == 9
    assert main(["draw", *given, "-o", str(tmp_path / "folder")]) == 0
    assert len(list((tmp_path / "folder").glob("event*.png"))) == 1


@pytest.mark.parametrize("fitted", [False, True])
def test_tracks_found_in_process_are_fitted_where_the_bundle_can(
    fitted: bool, tmp_path: Path
) -> None:
    page, bundle = tmp_path / "a.html", tmp_path / "bundle"
    shutil.copytree(BUNDLES / "hl-lhc", bundle)
    if not fitted:
        description = tomllib.loads((bundle / "bundle.toml").read_text())
        for table in ("fit", "quality"):
            del description[table]
        for key in ("join", "min_quality", "extend"):
            del description["tracks"][key]
        (bundle / "bundle.toml").write_text(tomli_w.dumps(description))
    assert main(["view", str(SMALL), "--bundle", str(bundle), "-o", str(page)]) == 0
    (block,) = re.findall(r'class="event">([^<]+)<', page.read_text())
    header, columns = unpack_scene(base64.b64decode(block))
    assert header["fitted"] == fitted
    assert len(columns["track_pt"]) > 100


@pytest.mark.parametrize(
    ("command", "name", "says"),
    [
        ("draw", "a.jpg", "pictures are written as PNG"),
        ("draw", "nowhere/a.png", "does not exist"),
        ("view", "a.png", "neither .html"),
        ("view", "nowhere/a.html", "does not exist"),
    ],
)
def test_names_of_other_files_are_refused(
    command: str, name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(SMALL), "-o", str(tmp_path / name)]) == 2
    assert says in capsys.readouterr().err


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SOFTWARE = [
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-sandbox",
]


def test_page_draws_filters_and_answers_clicks(tmp_path: Path) -> None:
    if CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"):
        pytest.skip("needs chromium")
    api = pytest.importorskip("playwright.sync_api")
    page_file = tmp_path / "event.html"
    event, tracks = tiny()
    fitted = Tracks(tracks.labels, table_of(3))
    page_file.write_text(
        event_page([pack_scene("first", event, tracks), pack_scene("second", event, fitted)])
    )
    with (
        api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE) as browser,
    ):
        page = browser.new_page(viewport={"width": 900, "height": 600})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.goto(page_file.as_uri())
        page.wait_for_function("window.display?.event")
        assert page.inner_text("#name") == "first"
        assert page.inner_text("#shown") == "Shown: 2 tracks, 8 hits, 1 particles"
        page.select_option("#particles", "all")
        page.fill("#pt", "80")  # 4 GeV
        assert page.inner_text("#shown").endswith("1 particles")
        page.fill("#pt", "0")
        page.fill("#size", "1")
        page.check("#missed-only")
        assert page.inner_text("#shown") == "Shown: 0 tracks, 0 hits, 3 particles"
        page.uncheck("#missed-only")
        page.click("[data-view=side]")
        page.evaluate("new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn)))")
        page.mouse.click(*page.evaluate("display.where(3)"))
        page.wait_for_selector("#chosen", state="visible")
        assert "Track 0: 4 hits" in page.inner_text("#chosen")
        assert "matched" in page.inner_text("#chosen")
        assert "103" in page.inner_text("#chosen")
        page.keyboard.press("Escape")
        assert page.is_hidden("#chosen")
        assert page.is_hidden("#quality")
        page.keyboard.press("n")
        page.wait_for_function("document.getElementById('name').textContent == 'second'")
        assert page.is_visible("#quality")
        assert not wrong
