"""Ratios of two things measured in turn, with their 95 % interval. Pure arithmetic.

Round by round both sides saw the same machine, so the rounds are pairs: the interval is Student's t on the logarithms
of the ratios, which treats "twice as fast" and "half as fast" alike. The mean ratio is the geometric one.

Neighbouring pairs may be alike, where the machine was in one mood for some of them: then there are fewer observations
than pairs. Where there are many pairs the interval is reckoned of them, of the means of twos, of fours, and so on (H.
Flyvbjerg and H. G. Petersen, "Error estimates on averages of correlated data", J. Chem. Phys. 91, 1989), and the widest
counts.
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


_FEWEST_BLOCKS: Final = 16
"""Of fewer means nothing is said of their spread."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Geometric mean of the pairs' ratios and its 95 % interval. `empty`: so many pairs more have a 0 on one side, and
    are not in it."""

    mean: float
    low: float
    high: float
    pairs: int
    empty: int = 0

    def __str__(self) -> str:
        said = interval(self.mean, self.low, self.high)
        return f"{said}, {self.empty} empty left out" if self.empty else said


def interval(mean: float, low: float, high: float) -> str:
    """With a third digit where it says something."""
    digits = 3 if high - low < 0.1 * mean else 2
    return f"{mean:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def quantile_t(freedom: int) -> float:
    """The 97.5 % point of Student's distribution; beyond the table the first term of its expansion (< 0.1 % off)."""
    if freedom < 1:
        raise InvalidInput("degrees of freedom", str(freedom), "at least 1")
    return _T975[freedom - 1] if freedom <= len(_T975) else 1.95996 + 2.3724 / freedom


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times `theirs` `ours` is. A pair with a 0 has no ratio: it is left out and counted. Raises InvalidInput
    for fewer than two others, and for values below zero."""
    if len(ours) != len(theirs) or len(ours) < 2:
        raise InvalidInput("pairs", f"{len(ours)} and {len(theirs)} values", "at least two of each, equally many")
    if any(not math.isfinite(value) or value < 0 for value in (*ours, *theirs)):
        raise InvalidInput("pairs", why="no value may be below zero")
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True) if a and b]
    if len(logs) < 2:
        raise InvalidInput("pairs", why=f"{len(logs)} of {len(ours)} without a 0, at least two must be")
    middle = fmean(logs)
    spread = max(_half_width(logs, size) for size in _sizes(len(logs)))
    low, high = math.exp(middle - spread), math.exp(middle + spread)
    return Ratio(math.exp(middle), low, high, len(logs), empty=len(ours) - len(logs))


def _sizes(pairs: int) -> list[int]:
    """Of blocks of neighbours: 1, and each power of two that leaves enough of them."""
    return [1, *(size for power in range(1, 32) if pairs // (size := 2**power) >= _FEWEST_BLOCKS)]


def _half_width(logs: Sequence[float], size: int) -> float:
    """Half of the 95 % interval of the mean, from the means of blocks of `size` neighbours."""
    blocks = [fmean(logs[at : at + size]) for at in range(0, len(logs) - size + 1, size)]
    return quantile_t(len(blocks) - 1) * stdev(blocks) / math.sqrt(len(blocks))


def middle_of(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(median(values)) if values else 0.0
