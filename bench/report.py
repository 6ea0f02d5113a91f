"""What came out: a table for people, JSON for machines, and the facts of the machine. Nothing is measured here."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ambient.errors import InvalidInput
from bench.cases import LOWER_IS_BETTER, UNITS, Case, Sample
from bench.stats import Ratio, middle_of, paired_ratio

Samples = Mapping[str, Sequence[Sample]]
"""Arm's title -> one sample per round, in order."""


def machine() -> dict[str, Any]:
    """Kernel, processor and versions; no paths."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "kernel": platform.release(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": sys.version.split()[0],
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def ratios(samples: Samples, against: str, ours: str = "ambient") -> dict[str, Ratio]:
    """Of each figure that both arms have in two pairs at least; how many have it on one side only is in the ratio."""
    found = {}
    for figure in UNITS:
        left = [sample.figures.get(figure, 0.0) for sample in samples[ours]]
        right = [sample.figures.get(figure, 0.0) for sample in samples[against]]
        try:
            found[figure] = paired_ratio(left, right)
        except InvalidInput:
            continue
    return found


def case_json(case: Case, samples: Samples) -> dict[str, Any]:
    """Every sample, and the ratios of our arm to every other."""
    arms = {
        arm: {figure: [round(one.figures[figure], 4) for one in taken] for figure in taken[0].figures}
        | {"errors": [one.errors for one in taken]}
        for arm, taken in samples.items()
    }
    against = {
        arm: {
            figure: {name: round(value, 4) for name, value in asdict(ratio).items()}
            for figure, ratio in ratios(samples, arm).items()
        }
        for arm in samples
        if arm != "ambient" and "ambient" in samples
    }
    return {"title": case.title, "arms": arms, "ratio_to": against}


def case_lines(case: Case, samples: Samples) -> list[str]:
    """The case as lines of a table: medians per arm, then ratios with their 95 % interval."""
    lines = [f"\n{case.name}: {case.title}"]
    for figure, unit in UNITS.items():
        if not any(figure in one.figures for taken in samples.values() for one in taken):
            continue
        cells = [f"{arm} {_number(_median(taken, figure))}" for arm, taken in samples.items()]
        against = [
            f"{found[figure]} x {arm}"
            for arm in samples
            if arm != "ambient" and "ambient" in samples and figure in (found := ratios(samples, arm))
        ]
        better = "less is better" if figure in LOWER_IS_BETTER else "more is better"
        lines.append(f"  {figure:5} {unit:7} {' | '.join(cells):58} {' | '.join(against)}  ({better})")
    failed = {arm: sum(one.errors for one in taken) for arm, taken in samples.items()}
    if any(failed.values()):
        lines.append(f"  errors: {failed}")
    return lines


def case_rows(case: Case, samples: Samples) -> list[str]:
    """The case as rows of a Markdown table: what, ours, then per other arm its median and the ratio."""
    rows = []
    for figure, unit in UNITS.items():
        if not any(figure in one.figures for taken in samples.values() for one in taken):
            continue
        cells = [case.title, f"{figure}, {unit}", _number(_median(samples["ambient"], figure))]
        for arm, taken in samples.items():
            if arm != "ambient":
                ratio = ratios(samples, arm).get(figure)
                cells += [_number(_median(taken, figure)), str(ratio) if ratio else "-"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def markdown(cases: Sequence[tuple[Case, Samples]]) -> list[str]:
    """All cases as one Markdown table."""
    others = [arm for arm in cases[0][1] if arm != "ambient"] if cases else []
    head = ["case", "figure", "ambient", *(cell for arm in others for cell in (arm, f"ratio to {arm} (95 %)"))]
    rows = [row for case, samples in cases for row in case_rows(case, samples)]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows]


def _median(taken: Sequence[Sample], figure: str) -> float:
    """A slice without an answer has rate 0, and no latency."""
    found = [one.figures.get(figure, 0.0) for one in taken]
    return middle_of([value for value in found if value or figure not in LOWER_IS_BETTER])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
