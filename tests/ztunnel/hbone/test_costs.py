"""What a peer may make us do for nothing, to the last frame."""

from __future__ import annotations

import pytest

from ztunnel.hbone.costs import Costs
from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Limits, Violation

LIMITS = Limits(max_control_per_tick=3, max_reset_debt=2)


def test_one_control_frame_beyond_the_limit_ends_it_and_names_its_kind() -> None:
    costs = Costs(LIMITS)
    for reason in ("ping_flood", "settings_flood", "ping_flood"):
        costs.control(reason)
    with pytest.raises(Violation) as found:
        costs.control("priority_flood")
    assert (found.value.reason, found.value.code) == ("priority_flood", Code.ENHANCE_YOUR_CALM)


def test_every_second_begins_anew() -> None:
    costs = Costs(LIMITS)
    for _ in range(10):
        for _ in range(3):
            costs.control("ping_flood")
            assert costs.update()
        costs.tick()


def test_window_updates_beyond_the_allowance_are_paid_by_octets_that_were_sent_two_for_each() -> None:
    costs = Costs(LIMITS)
    for _ in range(3):
        assert costs.update()
    assert not costs.update()
    costs.pay(1)
    assert costs.update()
    assert not costs.update()
    with pytest.raises(Violation) as found:
        costs.pay(0)
    assert found.value.reason == "window_update_flood"


def test_wasted_streams_are_made_good_by_answered_ones_and_no_further() -> None:
    costs = Costs(LIMITS)
    for _ in range(5):
        costs.answered()
    for _ in range(50):
        costs.wasted()
        costs.answered()
    costs.wasted()
    costs.wasted()
    with pytest.raises(Violation) as found:
        costs.wasted()
    assert found.value.reason == "rapid_reset"
