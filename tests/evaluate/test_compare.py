"""Two finders on the same events: who finds what the other doesn't, by how much, and how fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tiny_events import event_of, labels

from trackserve.cli import main
from trackserve.errors import InputError
from trackserve.evaluate.compare import Paired, Side, compare
from trackserve.evaluate.compare_page import as_html, as_markdown
from trackserve.event import Event, Tracks

EVENT = event_of([5] * 7 + [0] * 2 + [9] * 4)
WHOLE = Tracks(labels(*[0] * 7, -1, -1, *[1] * 4))
SPLIT = Tracks(labels(0, 0, 0, 1, 1, 1, -1, -1, -1, 2, 2, 2, 2))  # particle 5 in two halves
FAKE = Tracks(labels(*[0] * 7, 1, 1, 1, 1, -1, -1))  # two hits of particle 9 with the noise


def side(name: str, tracks: Tracks) -> Side:
    return Side(name, lambda _: tracks)


def test_particles_that_one_alone_finds_are_counted_and_named() -> None:
    result = compare([EVENT, EVENT], side("split", SPLIT), side("fake", FAKE))
    headline = result.targets["headline"]
    assert headline == Paired(both=0, only_a=2, only_b=2, total=4)
    assert headline.difference == 0
    low, high = headline.interval
    assert low < 0 < high
    assert [(each.finder, each.particle_id, each.hits) for each in result.particles].count(
        ("B", 5, 7)
    ) == 2
    assert {(each.finder, each.particle_id) for each in result.particles} == {("A", 9), ("B", 5)}
    fakes = result.rate_difference(lambda each: each.fakes)
    assert fakes.value == pytest.approx(1 / 2)  # of B's two tracks one is a fake, of A's three none
    assert fakes.low == fakes.high == fakes.value  # the events are alike
    assert result.totals[0].duplicates.passed == 2


def test_the_better_one_has_an_interval_above_nothing_with_many_particles() -> None:
    result = compare([EVENT] * 20, side("fake", FAKE), side("whole", WHOLE))
    pair = result.targets["headline"]
    assert pair == Paired(both=20, only_a=0, only_b=20, total=40)
    low, high = pair.interval
    assert 0.35 < low < pair.difference == 0.5 < high < 0.65
    assert result.score_difference().value > 0


def test_times_are_paired_whoever_begins_and_files_have_none() -> None:
    order: list[str] = []

    def slow(_: Event) -> Tracks:
        order.append("slow")
        time.sleep(0.004)
        return WHOLE

    def fast(_: Event) -> Tracks:
        order.append("fast")
        time.sleep(0.001)
        return WHOLE

    result = compare([EVENT] * 4, Side("slow", slow), Side("fast", fast))
    assert order[2:] == ["slow", "fast", "fast", "slow"] * 2  # after once each, unmeasured
    assert result.time_ratio().value < 1
    page = as_markdown(compare([EVENT], side("x", WHOLE), Side("tracks.csv", fast, timed=False)))
    assert "| median |" in page.replace("  ", " ")
    assert "over A" in page


def test_the_page_is_the_same_in_markdown_and_html() -> None:
    result = compare([EVENT, EVENT], side("a|b<c>", SPLIT), side("fake", FAKE))
    page, markup = as_markdown(result), as_html(result)
    assert "| headline | 4 | 50.00 % | 50.00 % | +0.00 %" in page
    assert "Only A finds" in page
    assert "a|b&lt;c&gt;" in markup
    assert markup.count("<tr>") == sum(
        line.startswith("|") and "---" not in line for line in page.splitlines()
    )


def test_what_is_nothing_to_compare_is_refused(tmp_path, capsys) -> None:
    assert main(["compare", "nothing", "trackml", str(tmp_path), "-o", "page.pdf"]) == 2
    assert "expected .md or .html" in capsys.readouterr().err
    event = tmp_path / "event000000001-hits.csv"
    event.write_text("hit_id,x,y,z\n1,1,2,3\n")
    assert main(["compare", "nothing", "trackml", str(event)]) == 2
    assert "'nothing' is nothing to compare" in capsys.readouterr().err
    with pytest.raises(InputError, match="no events"):
        compare([], side("a", WHOLE), side("b", WHOLE))
    without = Event(1, EVENT.hits)
    with pytest.raises(InputError, match="no truth"):
        compare([without], side("a", WHOLE), side("b", WHOLE))
    assert np.isnan(Paired().difference)
