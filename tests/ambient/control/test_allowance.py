from __future__ import annotations

from ambient.control.allowance import Allowance


def test_a_burst_then_a_steady_pace_and_each_for_himself() -> None:
    allowance = Allowance(3, 10.0)
    assert [allowance.spend("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert allowance.spend("b", 0.0)
    assert [allowance.spend("a", at) for at in (9.9, 10.0, 10.1, 20.0)] == [False, True, False, True]
    assert [allowance.spend("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_who_has_been_quiet_is_not_remembered() -> None:
    allowance = Allowance(3, 10.0)
    for number in range(1000):
        allowance.spend(number, float(number))
    assert len(allowance._empty_until) < 20
