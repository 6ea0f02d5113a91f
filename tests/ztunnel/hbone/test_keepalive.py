"""A quiet peer is asked in time, and believed gone in time; figures are those of the limits."""

from __future__ import annotations

import pytest

from ztunnel.hbone.keepalive import KeepAlive
from ztunnel.hbone.limits import Limits, Violation

LIMITS = Limits(ping_after=10.0, ping_timeout=20.0)


def test_the_first_question_comes_ten_seconds_after_the_start_and_the_next_ten_after_the_answer() -> None:
    keepalive = KeepAlive(LIMITS)
    assert [now for now in range(100, 112) if keepalive.due(float(now))] == [110]
    keepalive.answered()
    assert [now for now in range(113, 125) if keepalive.due(float(now))] == [123]


def test_an_answer_that_is_twenty_seconds_late_is_none() -> None:
    keepalive = KeepAlive(LIMITS)
    keepalive.due(0.0)
    assert keepalive.due(10.0)
    assert not keepalive.due(29.9)
    with pytest.raises(Violation) as found:
        keepalive.due(30.0)
    assert found.value.reason == "ping_timeout"
    assert found.value.silent


def test_there_is_never_more_than_one_question_under_way() -> None:
    keepalive = KeepAlive(LIMITS)
    assert keepalive.ask(1.0)
    assert not keepalive.ask(2.0)
    assert not keepalive.due(12.0)
    keepalive.answered()
    assert keepalive.ask(3.0)


def test_an_answer_that_nobody_asked_for_delays_nothing() -> None:
    keepalive = KeepAlive(LIMITS)
    keepalive.due(0.0)
    keepalive.answered()
    assert keepalive.due(10.0)
