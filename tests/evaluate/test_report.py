import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_events import event_of, labels

from tiny_bundle import straight_tracks
from trackserve.bundle import Bundle
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import InputError
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.report import (
    DEFINITIONS,
    Evaluation,
    StagedTracks,
    evaluate,
    evaluate_event,
    pixels_of,
    with_stages,
)
from trackserve.evaluate.stages import true_edges
from trackserve.evaluate.targets import OwnTargets
from trackserve.event import Event, Hits, Modules, Tracks


def perfect(event: Event) -> StagedTracks:
    """The truth as an answer, with a graph of nothing but true edges."""
    assert event.truth is not None
    made = event.truth.particle_id
    ids = event.truth.particles.particle_id
    number = np.where(made == 0, -1, np.searchsorted(ids, made)).astype(np.int64)
    every = true_edges(event.hits, event.truth, np.ones(len(ids), np.bool_))
    return StagedTracks(Tracks(number), {"neighbours": every, "filter": every, "gnn": every})


EVENT = event_of([5] * 7 + [0] * 2 + [9] * 4)
SPLIT = Tracks(labels(0, 0, 0, 0, 1, 1, 1, -1, -1, 2, 2, 2, 2))


def test_perfect_answer_is_judged_perfect() -> None:
    result = evaluate_event(EVENT, perfect(EVENT)).to_json()
    assert result["headline"]["efficiency"]["value"] == 1
    assert result["headline"]["efficiency"]["total"] == 2
    assert result["strict"]["efficiency"]["total"] == 1
    assert result["headline"]["perfect"]["value"] == 1
    assert result["headline"]["fake_rate"]["passed"] == 0
    assert result["trackml_score"]["mean"] == pytest.approx(1)
    assert result["stages"]["gnn"]["purity"]["value"] == 1
    assert result["stages"]["neighbours"]["efficiency"]["passed"] == 9
    assert sum(result["headline"]["lost"].values()) == 0


def test_tracks_alone_are_judged_without_stages() -> None:
    result = evaluate_event(EVENT, SPLIT).to_json()
    assert result["duplicate_rate"]["passed"] == 1
    assert result["duplicate_rate"]["total"] == 3
    assert result["strict"]["duplicate_rate"] == result["duplicate_rate"]
    assert result["headline"]["target_duplicate_rate"]["total"] == 3
    assert result["stages"] == {}


def test_several_events_are_pooled() -> None:
    found = iter([perfect(EVENT).tracks, SPLIT, Tracks(np.full(13, -1))])
    result = evaluate([EVENT, EVENT, EVENT], lambda _: next(found))
    assert result.events == 3
    assert result.hits == 39
    assert result.targets["headline"].efficiency.passed == 4
    assert result.targets["headline"].efficiency.total == 6
    assert result.targets["headline"].losses == {"split": 2, "merged": 0}
    assert result.fakes.total == 5
    assert result.scores == pytest.approx([1, 8 / 11, 0])
    assert result.score_spread == pytest.approx(np.std([1, 8 / 11, 0], ddof=1))


def test_finder_sees_the_hits_of_each_event() -> None:
    seen: list[Hits] = []

    def find(hits: Hits) -> Tracks:
        seen.append(hits)
        return Tracks(np.full(len(hits), -1))

    events = [event_of([5, 5, 5]), event_of([9, 9, 9, 9])]
    evaluate(events, find)
    assert seen == [event.hits for event in events]


def test_an_event_of_nothing() -> None:
    result = evaluate([event_of([])], lambda _: Tracks(labels()))
    assert result.to_json()["headline"]["efficiency"]["value"] is None
    assert "efficiency" in result.table()


def test_json_can_be_written_and_names_its_terms() -> None:
    result = evaluate_event(EVENT, perfect(EVENT)).to_json()
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text)["definitions"] == DEFINITIONS
    assert {"headline", "strict", "low_pt", "efficiency", "fake_rate"} <= set(DEFINITIONS)
    bins = result["headline"]["bins"]
    assert bins["pt"]["unit"] == "GeV"
    assert sum(bins["density"]["total"]) == 2


def test_an_evaluation_is_read_back_from_its_json() -> None:
    whole = evaluate_event(EVENT, perfect(EVENT)) + evaluate_event(EVENT, perfect(EVENT))
    read = Evaluation.from_json(json.loads(json.dumps(whole.to_json())))
    assert read.to_json() == whole.to_json()
    assert (read + whole).to_json() == (whole + whole).to_json()


def test_one_event_has_no_spread() -> None:
    one = evaluate_event(EVENT, perfect(EVENT))
    assert "+-" not in one.table()
    assert "+- 0.0000 per event" in (one + one).table()


def test_targets_of_ones_own_are_judged_and_survive_json() -> None:
    own = OwnTargets("hits < 5"), OwnTargets("hits > 90")
    found = Tracks(labels(0, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, -1, -1))
    result = evaluate([EVENT], lambda _: found, own)
    few, many = (result.targets[each.name].efficiency for each in own)
    assert (few.passed, few.total, many.total) == (0, 1, 0)
    read = Evaluation.from_json(json.loads(json.dumps(result.to_json())))
    assert (read + result).targets["hits < 5"].efficiency.total == 2
    assert "particles with hits < 5" in read.table(explain=True)
    assert "Definitions" not in read.table()


def test_fakes_and_duplicates_are_counted_in_bins_of_tracks() -> None:
    result = evaluate_event(EVENT, Tracks(labels(0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, -1, -1)))
    assert result.track_bins["hits"]["fake rate"].total[:2].tolist() == [1, 2]
    assert result.track_bins["hits"]["fake rate"].passed[:2].tolist() == [0, 1]
    assert result.track_bins["hits"]["duplicate rate"].passed[:2].tolist() == [1, 0]
    for variable in ("pt", "eta"):
        rates = result.track_bins[variable]
        assert (rates["fake rate"].total.sum(), rates["fake rate"].passed.sum()) == (3, 1)
        assert rates["duplicate rate"].passed.sum() == result.duplicates.passed == 1
        assert "duplicate rate" in result.table(variables=[variable])
    assert "tracks by" not in result.table(variables=["density"])


def test_hits_without_weights_have_no_score() -> None:
    truth = replace(EVENT.truth, weight=np.zeros(13))
    result = evaluate_event(replace(EVENT, truth=truth), SPLIT)
    assert "no weights" in result.table()
    assert result.to_json()["trackml_score"]["mean"] is None
    assert Evaluation.from_json(result.to_json()).to_json() == result.to_json()


def test_table_is_aligned_and_complete() -> None:
    text = evaluate_event(EVENT, perfect(EVENT)).table(explain=True)
    blocks = text.split("\n\n")
    assert len(blocks) == 6
    for block in blocks[:5]:
        assert len({len(line) for line in block.splitlines()}) == 1
    assert "100.00 %" in blocks[1]
    # The particle of 4 hits and the one of 7 are found.
    assert "-  100.0  -  -  100.0  -" in blocks[2].splitlines()[1]
    assert "cut by gnn" in blocks[3]
    assert blocks[4].splitlines()[1].startswith("neighbours")
    assert "more than half" in blocks[5]


def test_pixel_set_judges_the_pixel_part_of_tracks_alone() -> None:
    # Of the seven hits of 5 the first three are in the pixel barrel, those of 9 are all outside.
    volume = np.array([8, 8, 8, 13, 13, 13, 13, 8, 13, 13, 13, 13, 13], np.int32)
    layer = np.arange(13, dtype=np.int32)
    hits = replace(EVENT.hits, modules=Modules(volume, layer, layer))
    event = replace(EVENT, hits=hits)
    # All its pixel hits on one track, with five of noise and another particle's outside.
    tracks = Tracks(labels(0, 0, 0, 1, 1, 1, 1, -1, 0, 0, 0, 0, 0))
    result = evaluate_event(event, tracks)
    assert result.targets["pixel"].efficiency == Ratio(1, 1)
    assert result.targets["pixel"].perfect == Ratio(1, 1)
    assert result.targets["pixel"].fakes == Ratio(0, 1)
    assert result.targets["headline"].efficiency == Ratio(1, 2)
    assert evaluate_event(EVENT, tracks).targets["pixel"].efficiency == Ratio(0, 0)
    part = pixels_of(event)
    assert part.hits.hit_id.tolist() == [0, 1, 2, 7]
    assert part.truth is not None
    assert part.truth.particle_id.tolist() == [5, 5, 5, 0]
    with pytest.raises(InputError, match="volume_id"):
        pixels_of(EVENT)


def test_event_without_truth_is_refused() -> None:
    event = Event(42, Hits.from_positions(np.zeros((0, 3), np.float32)))
    with pytest.raises(InputError, match="event 42 has no truth"):
        evaluate([event], lambda _: Tracks(labels()))


def test_no_events_are_refused() -> None:
    with pytest.raises(InputError, match="no event to evaluate"):
        evaluate([], lambda _: Tracks(labels()))


def test_adding_does_not_depend_on_the_grouping() -> None:
    parts = [evaluate_event(EVENT, found) for found in (perfect(EVENT).tracks, SPLIT, SPLIT)]
    first: Evaluation = (parts[0] + parts[1]) + parts[2]
    assert first.to_json() == (parts[0] + (parts[1] + parts[2])).to_json()


def test_stages_of_a_pipeline_are_numbered_by_the_rows_of_the_hits(tiny_bundle: Bundle) -> None:
    pipeline = ReferencePipeline(tiny_bundle)
    hits = straight_tracks(tracks=40, noise=60)
    found = with_stages(pipeline)(hits)
    number = found.tracks.labels
    assert (number == pipeline.find_tracks(hits).labels).all()

    neighbours, passed_filter, passed = (
        {(int(a), int(b)) for a, b in edges.T} for edges in found.stages.values()
    )
    assert list(found.stages) == ["neighbours", "filter", "gnn"]
    assert passed <= passed_filter <= neighbours
    assert passed
    # The tiny bundle builds tracks as connected components: both ends of an edge share a label,
    # and a track has at least one edge fewer than hits.
    inner, outer = found.stages["gnn"]
    assert (number[inner] == number[outer]).all()
    assert len(passed) >= (number >= 0).sum() - len(found.tracks)
