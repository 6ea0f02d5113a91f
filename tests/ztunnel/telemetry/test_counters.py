"""Counters report what changed, as totals."""

from __future__ import annotations

from ztunnel.telemetry.counters import TrafficCounters


def test_a_report_has_totals_of_what_changed_and_nothing_else() -> None:
    counters = TrafficCounters()
    assert counters.report(dict) is None
    counters.series(("a",)).opened += 1
    counters.series(("b",)).sent += 5
    counters.count("x", 2)
    report = counters.report(lambda: {"g": 1.0})
    assert report is not None
    assert {(s.labels, s.opened, s.sent) for s in report.series} == {(("a",), 1, 0), (("b",), 0, 5)}
    assert (report.other, report.gauges) == ({"x": 2}, {"g": 1.0})
    counters.series(("a",)).opened += 1
    again = counters.report(dict)
    assert again is not None
    assert [(s.labels, s.opened) for s in again.series] == [(("a",), 2)]
    assert again.other == {}


def test_a_new_director_gets_everything_again() -> None:
    counters = TrafficCounters()
    counters.series(("a",)).closed += 3
    counters.count("x")
    counters.report(dict)
    counters.resend()
    report = counters.report(dict)
    assert report is not None
    assert report.series[0].closed == 3
    assert report.other == {"x": 1}


def test_endless_new_series_between_two_reports_end_in_one() -> None:
    counters = TrafficCounters(limit=50)
    for number in range(110):
        counters.series(("source", str(number))).opened += 1
    assert counters.value("telemetry_series_overflow") == 10
    assert counters.series(("source", "overflow")).opened == 10


def test_a_report_forgets_what_changed_longest_ago() -> None:
    counters = TrafficCounters(limit=2)
    for name in ("a", "b", "c"):
        counters.series(("source", name)).opened += 1
        last = counters.report(dict)
    assert last is not None
    assert last.forgotten == (("source", "a"),)
    assert len(counters) == 2


def test_a_forgotten_series_that_somebody_still_counts_with_begins_again_as_one() -> None:
    counters = TrafficCounters(limit=1)
    held = counters.series(("source", "a"))
    held.opened += 7
    counters.report(dict)
    counters.series(("source", "b")).opened += 1
    assert counters.report(dict) is not None
    counters.touch(held)
    held.closed += 1
    assert counters.series(("source", "a")) is held
    report = counters.report(dict)
    assert report is not None
    assert [(s.labels[1], s.opened, s.closed) for s in report.series] == [("a", 0, 1)]


def test_endless_label_sets_of_a_metric_end_in_one_and_leave_room_for_the_others() -> None:
    counters = TrafficCounters()
    for number in range(4_005):
        counters.count(f'istio_dns_requests{{source_canonical_revision="{number}"}}')
    assert counters.value("telemetry_names_overflow") == 5
    denials = 'policy_denials{policy="shop/deny",reason="denied-by"}'
    counters.count(denials)
    counters.count('istio_dns_requests{source_canonical_revision="7"}')
    assert counters.value(denials) == 1
    assert counters.value('istio_dns_requests{source_canonical_revision="7"}') == 2
    assert counters.value("telemetry_names_overflow") == 5
