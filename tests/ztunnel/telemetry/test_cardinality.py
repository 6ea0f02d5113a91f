"""A hundred thousand different label sets: worker, director and scrape stay as small as the limit says."""

from __future__ import annotations

import gc
import sys
from types import FunctionType, ModuleType

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ambient.model.traffic import TRAFFIC
from ztunnel.admin.stats import Stats
from ztunnel.director.tally import Tally
from ztunnel.ipc.codec import decode, encode
from ztunnel.ipc.messages import Counters
from ztunnel.telemetry.counters import TrafficCounters

SETS = 100_000
PER_REPORT = 1_000
LIMIT = 200
OCTETS_PER_SET = 1_000
"""Less than what one label set takes: 27 texts and the tuple of them."""


def labels(number: int) -> tuple[str, ...]:
    return ("source", *(f"{name}-{number}" for name in TRAFFIC[1:20]), "tcp", "-", "mutual_tls", "r", "z", "r", "z")


def flood(limit: int, sets: int) -> tuple[TrafficCounters, Tally]:
    """One busy series and `sets` that are seen once, reported as a worker reports."""
    counters, tally = TrafficCounters(limit), Tally(limit)
    tally.hello(1)
    for begin in range(0, sets, PER_REPORT):
        busy = counters.series(labels(-1))
        busy.opened += 50
        for number in range(begin, begin + PER_REPORT):
            totals = counters.series(labels(number))
            totals.opened += 1
            totals.received += 10
        report = counters.report(dict)
        assert report is not None
        arrived = decode(encode(report))
        assert isinstance(arrived, Counters)
        tally.report(1, arrived)
        tally.rank()
    return counters, tally


def octets_of(*roots: object) -> int:
    """What these objects and all that only data leads to from them take."""
    seen: dict[int, object] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


def test_memory_and_scrape_are_bounded_and_nothing_is_lost() -> None:
    counters, tally = flood(LIMIT, SETS)
    assert octets_of(counters, tally) < SETS * OCTETS_PER_SET / 10
    assert len(counters) <= LIMIT + 1
    text = Stats(tally, dict).render()
    families = list(text_string_to_metric_families(text.decode()))  # type: ignore[no-untyped-call]
    (opened,) = (family for family in families if family.name == "istio_tcp_connections_opened")
    assert len(opened.samples) <= LIMIT + 1
    assert len(text) < 5 * (LIMIT + 2) * 1500
    shown = {sample.labels["source_workload"]: sample.value for sample in opened.samples}
    assert shown["source_workload--1"] >= 50 * (SETS // PER_REPORT - 2)
    # A line that was given up ends with what it had counted, as a pod's that is gone.
    assert 0.9 * SETS < sum(shown.values()) - shown["source_workload--1"] <= SETS + 50


def test_without_the_limit_the_same_flood_is_not_bounded() -> None:
    counters, tally = flood(20_000, 10 * PER_REPORT)
    assert octets_of(counters, tally) > 10 * PER_REPORT * OCTETS_PER_SET
    assert len(counters) == 10 * PER_REPORT + 1
    assert len(tally.series()) == 10 * PER_REPORT + 1


def test_the_overflow_series_still_says_who_reports_how_it_ended_and_how_secure_it_was() -> None:
    _, tally = flood(10, PER_REPORT)
    (rest,) = (key for key in tally.series() if key[1] == "overflow")
    told = dict(zip(TRAFFIC, rest, strict=True))
    assert {name for name, value in told.items() if value != "overflow"} == {
        "reporter",
        "request_protocol",
        "response_flags",
        "connection_security_policy",
    }
