"""What is said of a waypoint's cost follows the figures."""

from __future__ import annotations

from bench.stats import Ratio
from bench.waypoint import Cost, Hop, lines


def test_what_it_adds_to_the_time_of_a_request_is_told_and_not_to_a_rate() -> None:
    quick = Hop("rr1", "p50", 150.0, 420.0, Ratio(2.8, 2.5, 3.1, 7))
    many = Hop("rr64", "rate", 20_000.0, 9_000.0, Ratio(0.45, 0.4, 0.5, 7))
    text = "\n".join(lines([quick, many], [Cost("rr64", "envoy", 0.04, 91.5)]))
    assert "| rr1, p50 | 150 | 420 | +270 us | 2.80 (2.50-3.10) |" in text
    assert "| rr64, rate | 20000 | 9000 |  | 0.45 (0.40-0.50) |" in text
    assert "| rr64 | envoy | 0.0 | 91.5 |" in text
