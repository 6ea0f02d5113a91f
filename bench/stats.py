"""Ratios of two things measured in turn, with their 95 % interval. Pure arithmetic.

Round by round both sides saw the same machine, so the rounds are pairs: the interval is Student's t on the logarithms
of the ratios, which treats "twice as fast" and "half as fast" alike. The mean ratio is the geometric one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Final

from ambient.errors import InvalidInput

_T975: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 97.5 % points of Student's distribution for 1..30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Geometric mean of the pairs' ratios and its 95 % interval."""

    mean: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f}-{self.high:.2f})"


def quantile_t(freedom: int) -> float:
    """The 97.5 % point of Student's distribution; beyond the table the first term of its expansion (< 0.1 % off)."""
    if freedom < 1:
        raise InvalidInput("degrees of freedom", str(freedom), "at least 1")
    return _T975[freedom - 1] if freedom <= len(_T975) else 1.95996 + 2.3724 / freedom


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times `theirs` `ours` is. Raises InvalidInput for fewer than two pairs or values not above zero."""
    if len(ours) != len(theirs) or len(ours) < 2:
        raise InvalidInput("pairs", f"{len(ours)} and {len(theirs)} values", "at least two of each, equally many")
    if any(not math.isfinite(value) or value <= 0 for value in (*ours, *theirs)):
        raise InvalidInput("pairs", why="every value must be above zero")
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    middle = fmean(logs)
    spread = quantile_t(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - spread), math.exp(middle + spread), len(logs))


def middle_of(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(median(values)) if values else 0.0
