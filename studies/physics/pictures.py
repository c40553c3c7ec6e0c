"""The pictures of the physics report and of the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from studies.record import ROOT
from trackserve.data import find_events
from trackserve.evaluate.display import draw_event
from trackserve.evaluate.plots import write_plots

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.engines.base import Pipeline
    from trackserve.evaluate.report import Evaluation

DPI = 110


def draw_plots(bundle: Evaluation, kalman_filter: Evaluation, folder: Path) -> list[Path]:
    """Draw efficiencies, stages and losses of the bundle, the Kalman filter's efficiencies beside."""
    paths = write_plots(bundle, folder, peers={"ACTS": kalman_filter}, dpi=DPI)
    for path in paths:
        _shrink(path, Image.open(path))
    return paths


def draw_shipped_event(pipeline: Pipeline, path: Path) -> None:
    """Draw the shipped event at pileup 200 with the tracks that the pipeline finds."""
    (source,) = find_events(ROOT / "examples/events/pu200")
    event = source.read_columns(pipeline.bundle.features.wire_columns)
    tracks = pipeline.find_tracks(event.hits)
    draw_event(event.hits, tracks, path, truth=event.truth, title="ttbar at pileup 200")
    image = Image.open(path).convert("RGB").resize((1600, 789), Image.Resampling.LANCZOS)
    _shrink(path, image)


def _shrink(path: Path, image: Image.Image) -> None:
    """Write an image in 192 colours: a fifth of the bytes, for who opens the page."""
    image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
