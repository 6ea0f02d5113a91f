"""The budgets of the design, and what a run of the benchmarks says about them: held or missed.

What was measured in rounds is held only when the worse end of its 95 % interval holds. What is measured once (memory)
has no interval and is held or missed by its figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.control import last_percent
from bench.judging import MOST_TIMES, MOST_US
from bench.stats import interval, middle_of

_MIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """One budget against what was found, both as text."""

    what: str
    budget: str
    found: str
    held: bool

    def __str__(self) -> str:
        return f"{'held' if self.held else 'MISSED':6} {self.what}: {self.budget}; found {self.found}"


_FASTER: Final = (
    ("requests/s, 64 keep-alive connections", "rr64", "rate", 1.25),
    ("new connections/s, 32 clients", "crr", "rate", 1.25),
    ("bulk, 1 stream", "bulk1", "gbit", 1.25),
    ("bulk, 8 streams", "bulk8", "gbit", 1.25),
)
_QUICKER: Final = (
    ("p50 of one keep-alive connection", "rr1", "p50", 1.0),
    ("p99 of one keep-alive connection", "rr1", "p99", 1.0),
)
_CONNECTION_US: Final = 400.0
_WORKER_MIB: Final = 25.0
_DIRECTOR_MIB: Final = 60.0
_WORKLOAD_OCTETS: Final = 1024.0
_LOAD_S: Final = 10.0
_CONTROL_MIB: Final = 600.0
_POLICY_MS: Final = 300.0
_BEHIND_MS: Final = 1000.0
_BACK: Final = 0.01


def verdicts(found: Mapping[str, Any], other: str) -> list[Verdict]:
    """Of every budget whose measurement is in `found` (the JSON of a run); `other` is the title of the reference."""
    return [
        *_speed(found.get("cases", {}), other),
        *_memory(found.get("memory", ()), other),
        *_judging(found.get("judging", ())),
        *_knowing(found.get("workloads")),
        *_scale(found.get("scale")),
    ]


def _speed(cases: Mapping[str, Any], other: str) -> list[Verdict]:
    made = []
    for what, case, figure, bound in _FASTER:
        ratio = cases.get(case, {}).get("ratio_to", {}).get(other, {}).get(figure)
        if ratio:
            made.append(Verdict(what, f">= {bound}x {other}", _interval(ratio), ratio["low"] >= bound))
    for what, case, figure, bound in _QUICKER:
        ratio = cases.get(case, {}).get("ratio_to", {}).get(other, {}).get(figure)
        if ratio:
            made.append(Verdict(what, f"<= {bound}x {other}", _interval(ratio), ratio["high"] <= bound))
    spent = cases.get("crr", {}).get("arms", {}).get("ambient", {}).get("cpu")
    if spent:
        middle = middle_of(spent)
        budget = f"<= {_CONNECTION_US:.0f} us"
        made.append(Verdict("CPU per new connection, both ends", budget, f"{middle:.0f} us", middle <= _CONNECTION_US))
    return made


def _memory(sizes: Sequence[Mapping[str, Any]], other: str) -> list[Verdict]:
    ours = [one for one in sizes if one["arm"] == "ambient"]
    if not ours:
        return []
    worker = max(one["loaded"]["private"] for one in ours if "worker" in one["role"]) / _MIB
    director = max(one["loaded"]["pss"] for one in ours if "director" in one["role"]) / _MIB
    made = [
        Verdict("a worker under load, private", f"<= {_WORKER_MIB:.0f} MiB", f"{worker:.1f}", worker <= _WORKER_MIB),
        Verdict(
            "a director under load, PSS", f"<= {_DIRECTOR_MIB:.0f} MiB", f"{director:.1f}", director <= _DIRECTOR_MIB
        ),
    ]
    theirs = sum(one["loaded"]["pss"] for one in sizes if one["arm"] == other) / _MIB
    if theirs:
        all_of_it = sum(one["loaded"]["pss"] for one in ours) / _MIB
        found = f"{all_of_it:.0f} MiB beside {theirs:.0f}, {all_of_it / theirs:.2f}x"
        made.append(Verdict("all of ztunnel under load, PSS", f"<= 1x {other}", found, all_of_it <= theirs))
    return made


def _judging(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    if not rows:
        return []
    slowest = max(one["many_us"] for one in rows)
    steepest = max((one["ratio"] for one in rows), key=lambda ratio: ratio["high"])
    what = "judging a connection, 10,000 policies"
    return [
        Verdict(what, f"<= {MOST_US:.0f} us", f"{slowest:.2f} us", slowest <= MOST_US),
        Verdict(f"{what} beside 10", f"<= {MOST_TIMES}x", _interval(steepest), steepest["high"] <= MOST_TIMES),
    ]


def _knowing(known: Mapping[str, Any] | None) -> list[Verdict]:
    if not known:
        return []
    before, after = known["before"], known["after"]
    each = max(
        (after[role] - size) * 1024 / known["workloads"] for role, size in before.items() if role.startswith("ztunnel")
    )
    budget = f"<= {_WORKLOAD_OCTETS:.0f} octets"
    return [Verdict("a workload known", budget, f"{each:.0f} octets", each <= _WORKLOAD_OCTETS)]


def _scale(found: Mapping[str, Any] | None) -> list[Verdict]:
    if not found:
        return []
    slowest, behind = last_percent(found["policy_ms"]), last_percent(found["pods_ms"])
    share = found["back_bytes"] / found["first_bytes"]
    memory = found["memory_most"]
    return [
        Verdict(
            "a large cluster served", f"<= {_LOAD_S:.0f} s", f"{found['load_s']:.1f} s", found["load_s"] <= _LOAD_S
        ),
        Verdict("a control plane's memory", f"< {_CONTROL_MIB:.0f} MiB", f"{memory:.0f}", memory < _CONTROL_MIB),
        Verdict("a policy change at 50 nodes, p99", f"<= {_POLICY_MS:.0f} ms", f"{slowest:.0f}", slowest <= _POLICY_MS),
        Verdict("100 pod changes/s, p99", f"<= {_BEHIND_MS:.0f} ms behind", f"{behind:.0f}", behind <= _BEHIND_MS),
        Verdict("sent to who comes back", f"<= {_BACK:.0%} of everything", f"{share:.3%}", share <= _BACK),
    ]


def _interval(ratio: Mapping[str, float]) -> str:
    mean, _, rest = interval(ratio["mean"], ratio["low"], ratio["high"]).partition(" ")
    return f"{mean}x {rest}"


def lines(found: Sequence[Verdict]) -> list[str]:
    """As a Markdown table."""
    rows = [f"| {one.what} | {one.budget} | {one.found} | {'held' if one.held else '**missed**'} |" for one in found]
    return ["", "| budget | bound | found | |", "|---" * 4 + "|", *rows] if rows else []
