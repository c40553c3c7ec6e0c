"""Judging the tracks in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.evaluate.report import Evaluation, add_up, evaluate_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trackserve.data.submission import Submission
    from trackserve.evaluate.metrics import TargetSet
    from trackserve.event import Event


def evaluate_tracks(
    events: Iterable[Event], submission: Submission, own: Sequence[TargetSet] = ()
) -> tuple[Evaluation, int]:
    """Judge the tracks in a file on these events; also return how many of their hits have no row.

    ``own`` are further sets of targets.
    Raises InputError where there is no event, and as :meth:`trackserve.data.submission.Submission.tracks_of` does.
    """
    absent = 0

    def judged(event: Event) -> Evaluation:
        nonlocal absent
        tracks, missing = submission.tracks_of(event)
        absent += missing
        return evaluate_event(event, tracks, own)

    evaluation = add_up(judged(event) for event in events)
    return evaluation, absent
