from pathlib import Path

import numpy as np
import pytest
from tiny_events import event_of, labels

from trackserve.errors import InputError
from trackserve.evaluate.display import choose_tracks, draw_event, transverse_momentum
from trackserve.event import Hits, Int64, Tracks

RADII = np.array([32.0, 72, 116, 172, 260, 360, 500, 660, 820, 1020])


def curled(momenta: list[float]) -> tuple[Hits, Int64]:
    """Hits of particles of these transverse momenta (GeV) in 2 T, from the beam line."""
    positions = []
    for number, pt in enumerate(momenta):
        turn = np.arcsin(RADII / (2 * pt / (0.299792458e-3 * 2)))
        phi = 0.7 * number + turn * (-1) ** number
        positions.append(np.stack([RADII * np.cos(phi), RADII * np.sin(phi), 0.8 * RADII], axis=1))
    hits = Hits.from_positions(np.concatenate(positions))
    return hits, np.repeat(np.arange(len(momenta)), len(RADII))


def test_momentum_from_curvature() -> None:
    momenta = [0.5, 1.0, 2.0, 10.0]
    hits, numbers = curled(momenta)
    assert transverse_momentum(hits, Tracks(numbers)) == pytest.approx(momenta, rel=1e-2)


def test_straight_track_is_infinitely_fast() -> None:
    hits = Hits.from_positions(np.array([[1, 0, 0], [2, 0, 0], [4, 0, 0]], np.float32))
    assert transverse_momentum(hits, Tracks(labels(0, 0, 0)))[0] == np.inf


def test_fastest_tracks_are_chosen() -> None:
    hits, numbers = curled([3.0, 0.6, 9.0, 1.0, 5.0])
    chosen, slowest = choose_tracks(hits, Tracks(numbers), limit=3)
    assert chosen.tolist() == [0, 2, 4]
    assert slowest == pytest.approx(3.0, rel=1e-2)


def test_all_tracks_are_chosen_below_the_limit_but_for_pairs() -> None:
    hits = Hits.from_positions(np.arange(15, dtype=np.float32).reshape(5, 3))
    chosen, slowest = choose_tracks(hits, Tracks(labels(0, 0, 1, 1, 1)), limit=3)
    assert chosen.tolist() == [1]
    assert slowest == 0


def test_picture_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    event = event_of([5] * 4 + [9] * 4 + [0] * 3)
    tracks = Tracks(labels(0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1))
    plain = draw_event(event.hits, tracks, tmp_path / "new" / "plain.png")
    coloured = draw_event(
        event.hits, tracks, tmp_path / "coloured.png", truth=event.truth, title="t"
    )
    assert plain.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert plain.read_bytes() != coloured.read_bytes()


@pytest.mark.parametrize("hits", [0, 1])
def test_next_to_nothing_can_be_drawn(hits: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    event = event_of([0] * hits)
    tracks = Tracks(np.full(hits, -1))
    assert draw_event(event.hits, tracks, tmp_path / "event.png", truth=event.truth).exists()


def test_labels_of_another_event_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 labels for 3 hits"):
        draw_event(event_of([5, 5, 5]).hits, Tracks(labels(0, 0)), tmp_path / "event.png")
