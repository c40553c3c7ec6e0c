import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackserve.evaluate.intervals import Ratio, wilson


def test_wilson_equals_published_values() -> None:
    # Brown, Cai, DasGupta and R's binom::binom.wilson(c(0, 8, 10), 10), 95 %.
    low, high = wilson([0, 8, 10], [10, 10, 10], sigma=1.959963984540054)
    assert low == pytest.approx([0.0, 0.4901625, 0.7224672], abs=1e-7)
    assert high == pytest.approx([0.2775328, 0.9433178, 1.0], abs=1e-7)


def test_wilson_ends_solve_its_equation() -> None:
    low, high = wilson(37, 50)
    for end in (low, high):
        assert abs(37 / 50 - end) == pytest.approx(math.sqrt(end * (1 - end) / 50))


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_covers_two_thirds_of_experiments() -> None:
    passed = np.random.default_rng(1).binomial(400, 0.97, size=20_000)
    low, high = wilson(passed, 400)
    assert np.mean((low <= 0.97) & (high >= 0.97)) == pytest.approx(0.683, abs=0.03)


@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_value_lies_in_its_interval(counts: tuple[int, int]) -> None:
    ratio = Ratio(*counts)
    assert 0 <= ratio.low <= ratio.value <= ratio.high <= 1


def test_ratio_of_nothing_has_no_value() -> None:
    assert math.isnan(Ratio().value)
    assert Ratio().to_json() == {"value": None, "low": 0.0, "high": 1.0, "passed": 0, "total": 0}
    assert str(Ratio()) == "-"


def test_adding_pools_counts() -> None:
    assert Ratio(1, 2) + Ratio(3, 10) == Ratio(4, 12)


def test_ratio_reads_as_percent_with_interval() -> None:
    assert str(Ratio(975, 1000)) == "97.50 % (96.96-97.95)"
