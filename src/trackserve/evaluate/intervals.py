"""Ratios of counts with their intervals: every efficiency and rate is one of these."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from trackserve.event import Float64


def wilson(passed: ArrayLike, total: ArrayLike, sigma: float = 1.0) -> tuple[Float64, Float64]:
    """Return the lower and upper ends of Wilson's score interval for a binomial ratio.

    It covers the true ratio in 68.3 % of cases for ``sigma`` 1 and stays within [0, 1] and of
    finite width at 0 % and 100 %; of nothing at all (``total`` 0) it is all of [0, 1].
    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    k, n = np.asarray(passed, np.float64), np.asarray(total, np.float64)
    counted = np.maximum(n, 1)
    ratio = k / counted
    scale = 1 + sigma**2 / counted
    centre = (ratio + sigma**2 / (2 * counted)) / scale
    half = sigma / scale * np.sqrt(ratio * (1 - ratio) / counted + (sigma / (2 * counted)) ** 2)
    # At 0 % and 100 % the interval ends there exactly; rounding must not move it past the value.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Ratio:
    """``passed`` of ``total``; adding two ratios pools their counts."""

    passed: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.passed <= self.total

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.passed + other.passed, self.total + other.total)

    @property
    def value(self) -> float:
        """The ratio in [0, 1]; nan of nothing."""
        return self.passed / self.total if self.total else nan

    @property
    def low(self) -> float:
        """The lower end of the 68.3 % interval."""
        return float(wilson(self.passed, self.total)[0])

    @property
    def high(self) -> float:
        """The upper end of the 68.3 % interval."""
        return float(wilson(self.passed, self.total)[1])

    def __str__(self) -> str:
        if not self.total:
            return "-"
        return f"{100 * self.value:.2f} % ({100 * self.low:.2f}-{100 * self.high:.2f})"

    def to_json(self) -> dict[str, float | int | None]:
        """Return value, interval and counts; the value of nothing is None."""
        return {
            "value": self.value if self.total else None,
            "low": self.low,
            "high": self.high,
            "passed": self.passed,
            "total": self.total,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Ratio:
        """Return the ratio that :meth:`to_json` wrote."""
        return cls(written["passed"], written["total"])
