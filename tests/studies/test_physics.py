import json
from pathlib import Path

import pytest

pytest.importorskip("acts")
pytest.importorskip("matplotlib")

from tiny_events import event_of, labels

from studies.markdown import markdown
from studies.physics.ckf import CONFIGURATIONS
from studies.physics.judge import (
    BundleFinder,
    Finder,
    Job,
    Judged,
    KalmanFinder,
    judge,
    tree_digest,
)
from studies.physics.plan import ELSEWHERE, MAIN, Plan, Sample
from studies.physics.report import numbers, points_lost
from studies.physics.tables import SETS, elsewhere, percent
from trackserve.bundle import Bundle
from trackserve.data import find_events
from trackserve.data.simulate import Settings
from trackserve.engines.reference import ReferencePipeline
from trackserve.evaluate.intervals import Ratio
from trackserve.evaluate.report import Evaluation, evaluate, evaluate_event, with_stages
from trackserve.event import Tracks
from wedge import SHIPPED, write_wedge

EVENT = event_of([5] * 7 + [0] * 2 + [9] * 4)


def judged(*tracks: list[int]) -> Judged:
    """Every list is the labels of one event."""
    found = [evaluate_event(EVENT, Tracks(labels(*each))) for each in tracks]
    return Judged(dict(enumerate(found)), {i: {"total": float(i)} for i in range(len(found))})


BOTH = [0] * 7 + [-1] * 2 + [1] * 4
ONE = [0] * 7 + [-1] * 6


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two events: the hits of the shipped one in two wedges."""
    folder = tmp_path_factory.mktemp("events")
    for number, turn in enumerate((0.0, 1.0)):
        write_wedge(folder, number, turn=turn, half=0.1)
    return folder


@pytest.fixture(scope="module")
def job(tiny_bundle: Bundle, events: Path) -> Job:
    return Job(BundleFinder(tiny_bundle.path, "reference"), events)


def test_events_are_judged_as_evaluate_does_and_only_once(
    job: Job, events: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (first,) = judge([job], tmp_path, workers=1)
    read = [source.read() for source in find_events(events)]
    expected = evaluate(read, with_stages(ReferencePipeline(tiny_bundle)))
    assert first.together().to_json() == expected.to_json()

    for result in job.results(tmp_path).iterdir():
        record = json.loads(result.read_text())
        result.write_text(json.dumps({**record, "seconds": {"total": 1234.5}}))
    (again,) = judge([job], tmp_path, workers=1)
    assert again.seconds_per_event() == {"total": 1234.5}
    assert again.together().to_json() == expected.to_json()


def test_processes_give_the_same(
    job: Job, events: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    finder = BundleFinder(tiny_bundle.path, "reference", positions_only=True)
    positions = Job(finder, events, events=1)
    results = [judge([job, positions], tmp_path / str(n), workers=n) for n in (1, 2)]
    for one, two in zip(*results, strict=True):
        assert one.together().to_json() == two.together().to_json()


def test_a_result_belongs_to_finder_settings_and_events(job: Job, tmp_path: Path) -> None:
    finders: list[Finder] = [
        job.finder,
        BundleFinder(None, "reference"),
        BundleFinder(None, "native"),
        BundleFinder(None, "native", positions_only=True),
        *map(KalmanFinder, CONFIGURATIONS),
    ]
    folders = {Job(finder, SHIPPED).results(tmp_path) for finder in finders}
    folders.add(Job(job.finder, SHIPPED.with_name("pu200")).results(tmp_path))
    assert len(folders) == len(finders) + 1


def test_a_result_belongs_to_the_code(tmp_path: Path) -> None:
    (tmp_path / "pipeline/__pycache__").mkdir(parents=True)
    file = tmp_path / "pipeline/new_stage.py"
    digests = {tree_digest(tmp_path)}
    for text in ("a = 1\n", "a = 2\n"):
        file.write_text(text)
        digests.add(tree_digest(tmp_path))
    (tmp_path / "pipeline/__pycache__/new_stage.pyc").write_bytes(b"compiled")
    digests.add(tree_digest(tmp_path))
    file.rename(file.with_name("newer_stage.py"))
    digests.add(tree_digest(tmp_path))
    assert len(digests) == 4


def test_positions_only_hides_everything_else(tiny_bundle: Bundle) -> None:
    (source,) = find_events(SHIPPED)
    hits = BundleFinder(tiny_bundle.path, positions_only=True).read(source).hits
    assert hits.modules is None
    assert hits.clusters is None


def test_numbers_by_hand() -> None:
    found = numbers(judged(BOTH, ONE), bins=True)
    assert found["headline"]["efficiency"] == 0.75
    assert found["headline"]["efficiency_counts"] == [3, 4]
    low, high = found["headline"]["efficiency_interval"]
    assert low < 0.75 < high
    assert found["strict"]["efficiency"] == 1
    assert found["strict"]["fake_rate"] == 0
    assert found["low_pt"]["efficiency"] is None
    assert found["headline"]["lost"] == {"split": 1, "merged": 0}
    assert sum(found["headline"]["bins"]["hits"]["total"]) == 4
    assert found["processor_seconds_per_event"] == {"total": 0.5}
    assert numbers(judged(BOTH, ONE), [1])["headline"]["efficiency"] == 0.5
    assert "bins" not in numbers(judged(BOTH))["headline"]


def test_points_lost_by_hand() -> None:
    lost = points_lost(judged(ONE).together(), judged(BOTH).together(), "headline")
    assert lost["value"] == 50
    half, whole = Ratio(1, 2), Ratio(2, 2)
    widths = (half.high - half.low, whole.high - whole.low)
    assert lost["error"] == pytest.approx(50 * (widths[0] ** 2 + widths[1] ** 2) ** 0.5)


def test_no_targets_lose_nothing() -> None:
    nothing: Evaluation = evaluate_event(event_of([]), Tracks(labels()))
    assert points_lost(nothing, nothing, "headline") is None


def test_a_plan_judges_every_condition_with_both_finders() -> None:
    folders = {name: Path(sample.name) for name, sample in ELSEWHERE.items()}
    jobs = Plan(Path("main"), Path("pileup-20"), folders, None, limit=1).jobs()
    for name in ("pileup 0", "constant field", "main"):
        assert isinstance(jobs[name].finder, BundleFinder)
    assert {name for name in jobs if name.startswith("ckf ")} >= {f"ckf {n}" for n in ELSEWHERE}
    assert all(job.events == 1 for job in jobs.values())


@pytest.mark.parametrize("sample", [MAIN, *ELSEWHERE.values()], ids=lambda s: s.name)
def test_samples_can_be_simulated(sample: Sample) -> None:
    Settings(seed=sample.seed, **{"pileup": 200, **sample.settings})


def test_ratios_are_shown_in_percent() -> None:
    record = {"fake_rate": 0.0123, "fake_rate_interval": [0.01, 0.015], "perfect": None}
    assert percent(record, "fake_rate") == "1.23 % (1.00-1.50)"
    assert percent(record, "perfect") == "-"
    assert markdown([("a", "b"), ("|x|", "1")]) == "| a | b |\n|---|---|\n| \\|x\\| | 1 |"


def test_losses_elsewhere_are_shown_with_their_sign() -> None:
    found = {
        **numbers(judged(BOTH)),
        "points_lost": {each: {"value": -1, "error": 2} for each in SETS},
    }
    text = elsewhere({"elsewhere": {"no noise": {**found, "ckf": found}}})
    assert text.splitlines()[2].startswith(
        "| no noise | 1 | 100.00 % (66.67-100.00) | -1.00 ± 2.00 |"
    )
