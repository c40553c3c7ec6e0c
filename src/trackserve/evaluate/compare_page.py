"""A comparison as one page, in Markdown or HTML: the same sections, each a sentence and a table."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trackserve.evaluate.metrics import HARD_PT
from trackserve.evaluate.report import DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trackserve.evaluate.compare import Comparison, Estimate, Paired
    from trackserve.evaluate.intervals import Ratio
    from trackserve.evaluate.report import Evaluation

MOST_PARTICLES = 20
"""Rows of particles that one finder alone finds, of each finder."""
STYLE = """body { font: 15px/1.45 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .25em .8em; text-align: right }
th { border-bottom: 1px solid } tr:nth-child(even) td { background: #f3f3f3 }
td:first-child, th:first-child { text-align: left }"""


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and the rows of a table, its head first."""

    title: str
    sentences: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()


def sections(result: Comparison) -> list[Section]:
    """Return the page's sections."""
    first, second = result.totals
    events = first.events
    hint = " Intervals over events mean little with so few." if events < 10 else ""
    return [
        Section(
            "Two track finders",
            (
                f"A is {result.names[0]}, B is {result.names[1]}, on the same {events} "
                f"event{'s' if events > 1 else ''} with {first.hits:,} hits.",
                "Differences are B less A, with 68.3 % intervals. * marks those whose interval doesn't hold 0.",
            ),
        ),
        _efficiencies(result),
        Section(
            "Tracks",
            (f"Differences by bootstrap over events.{hint}",),
            (
                ("", "A", "B", "B less A"),
                ("tracks", f"{first.fakes.total:,}", f"{second.fakes.total:,}", ""),
                *_rates(result),
                _score(result),
            ),
        ),
        _speed(result),
        *_particles(result),
        Section(
            "Definitions",
            tuple(
                f"{term}: {DEFINITIONS[term]}."
                for term in ("track", "efficiency", "fake_rate", "duplicate_rate", "trackml_score")
            ),
        ),
    ]


def _efficiencies(result: Comparison) -> Section:
    rows = [("targets", "of", "A", "B", "B less A", "only A finds", "only B finds")]
    for name, pair in result.targets.items():
        if pair.total:
            a, b = ((pair.both + only) / pair.total for only in (pair.only_a, pair.only_b))
            rows.append(
                (
                    *(name, f"{pair.total:,}", f"{100 * a:.2f} %", f"{100 * b:.2f} %"),
                    *(_paired(pair), f"{pair.only_a:,}", f"{pair.only_b:,}"),
                )
            )
    sentence = "Differences are paired: of the same particles, those that one alone finds count."
    return Section("Efficiency", (sentence,), tuple(rows))


def _paired(pair: Paired) -> str:
    return _percent(pair.difference, *pair.interval)


def _percent(value: float, low: float, high: float) -> str:
    if np.isnan(low):
        return f"{100 * value:+.2f} %"
    star = "" if low <= 0 <= high else " *"
    return f"{100 * value:+.2f} % ({100 * low:+.2f} to {100 * high:+.2f}){star}"


def _rates(result: Comparison) -> list[tuple[str, ...]]:
    rates: dict[str, Callable[[Evaluation], Ratio]] = {
        "fake rate": lambda e: e.fakes,
        f"of tracks above {HARD_PT:g} GeV": lambda e: e.hard_fakes,
        "duplicate rate": lambda e: e.duplicates,
    }
    return [
        (
            name,
            *(f"{100 * rate(each).value:.2f} %" for each in result.totals),
            _percent(*result.rate_difference(rate)),
        )
        for name, rate in rates.items()
    ]


def _score(result: Comparison) -> tuple[str, ...]:
    if any(np.isnan(each.scores).any() for each in result.totals):
        return ("TrackML score", "no weights", "no weights", "")
    means = (f"{np.mean(each.scores):.4f}" for each in result.totals)
    value, low, high = result.score_difference()
    text = f"{value:+.4f}"
    if not np.isnan(low):
        text += f" ({low:+.4f} to {high:+.4f}){'' if low <= 0 <= high else ' *'}"
    return ("TrackML score", *means, text)


def _speed(result: Comparison) -> Section:
    timed = ~np.isnan(result.seconds).any(axis=0)
    if not timed.any():
        return Section("Speed", ("Tracks from files have no time.",))
    rows: list[tuple[str, ...]] = [("wall time of an event", "A", "B", "B over A")]
    shown = [
        [
            f"{1000 * value:.1f} ms" if known else "-"
            for value, known in zip(values, timed, strict=True)
        ]
        for values in (np.median(result.seconds, axis=0), result.seconds.min(axis=0))
    ]
    ratio = _ratio(result.time_ratio()) if timed.all() else ""
    rows += [("median", *shown[0], ratio), ("shortest", *shown[1], "")]
    sentence = (
        "In turn on the same events, on whatever else this machine was doing; the ratio is the geometric "
        "mean over events. A server's time includes the way there and back."
    )
    return Section("Speed", (sentence,), tuple(rows))


def _ratio(found: Estimate) -> str:
    if np.isnan(found.low):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _particles(result: Comparison) -> list[Section]:
    head = ("event", "particle", "pT, GeV", "eta", "production radius, mm", "hits", "targets of")
    made = []
    for finder in ("A", "B"):
        every = [each for each in result.particles if each.finder == finder]
        rows = [
            (
                *(str(p.event_id), str(p.particle_id), f"{p.pt:.3g}", f"{p.eta:.2f}"),
                *(f"{p.production_radius:.2f}", str(p.hits), ", ".join(p.sets)),
            )
            for p in every[:MOST_PARTICLES]
        ]
        shown = f", the {MOST_PARTICLES} of the highest pT" if len(every) > MOST_PARTICLES else ""
        sentence = f"{len(every):,} particles{shown}."
        made.append(Section(f"Only {finder} finds", (sentence,), (head, *rows) if rows else ()))
    return made


def as_markdown(result: Comparison) -> str:
    """Return the page in Markdown."""
    blocks: list[str] = []
    for number, section in enumerate(sections(result)):
        blocks += [f"{'#' if not number else '##'} {section.title}", *section.sentences]
        if section.rows:
            head, *rows = section.rows
            rule = ["---", *["---:"] * (len(head) - 1)]
            blocks.append("\n".join(_markdown_row(row) for row in (head, rule, *rows)))
    return "\n\n".join(blocks) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def as_html(result: Comparison) -> str:
    """Return the page in HTML, with nothing loaded from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>Two track finders</title><style>{STYLE}</style>",
    ]
    for number, section in enumerate(sections(result)):
        level = 2 if number else 1
        parts.append(f"<h{level}>{html.escape(section.title)}</h{level}>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences]
        if section.rows:
            head, *rows = section.rows
            lines = [_html_row(head, "th"), *(_html_row(row, "td") for row in rows)]
            parts.append("<table>" + "\n".join(lines) + "</table>")
    return "\n".join(parts) + "</html>\n"


def _html_row(cells: Sequence[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"
