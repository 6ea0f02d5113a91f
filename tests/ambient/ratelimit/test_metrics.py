"""Metrics of the rate limit service: each result is there from the beginning."""

from __future__ import annotations

from ambient.ratelimit.metrics import REASONS, Metrics


def test_every_result_and_reason_is_told_before_there_was_one() -> None:
    text = Metrics().render().decode()
    for result in ("allowed", "denied", "error"):
        assert f'ambient_ratelimit_requests_total{{result="{result}"}} 0.0' in text
    for reason in REASONS:
        assert f'ambient_ratelimit_errors_total{{reason="{reason}"}} 0.0' in text
    assert "ambient_ratelimit_redis_up 0.0" in text


def test_an_error_is_counted_as_a_result_and_by_its_reason() -> None:
    metrics = Metrics()
    metrics.error("answer")
    text = metrics.render().decode()
    assert 'ambient_ratelimit_requests_total{result="error"} 1.0' in text
    assert 'ambient_ratelimit_errors_total{reason="answer"} 1.0' in text
