"""When certificates are asked for: half life, jitter, back-off, priorities, a bound; a valid one is never lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ambient.xds.renewal import AGAIN, LONGEST_RETRY, Priority, Schedule, Step

DAY = 86400.0


def middle() -> float:
    """A draw that gives no jitter."""
    return 0.5


def test_a_wanted_identity_is_fetched_at_once_and_only_once() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    assert schedule.step(0) == Step(("a",), None)
    assert schedule.step(0) == Step((), None)


def test_renewal_comes_at_half_life() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    schedule.step(0)
    assert schedule.fetched("a", 0, DAY, 0)
    assert schedule.step(10) == Step((), DAY / 2)
    assert schedule.step(DAY / 2).fetch == ("a",)


@pytest.mark.parametrize("back", [0, 120, 3600])
def test_what_a_ca_dates_back_for_clocks_that_are_behind_is_no_part_of_a_life(back: float) -> None:
    """Half of a certificate of a minute would be over when it comes, and each would be asked for at once."""
    schedule = Schedule(middle)
    schedule.want("a", 5000)
    schedule.step(5000)
    schedule.fetched("a", 5000 - back, 5060, 5000)
    assert schedule.step(5000) == Step((), 5030)


@pytest.mark.parametrize(("back", "now", "due"), [(120, 5010, 5030), (0, 5040, 5041)])
def test_a_certificate_out_of_custody_is_due_when_it_was_or_at_once(back: float, now: float, due: float) -> None:
    schedule = Schedule(middle)
    schedule.want("a", now)
    schedule.fetched("a", 5000 - back, 5060, now)
    assert schedule.step(now) == Step((), due)


def test_a_certificate_from_the_future_is_replaced_at_once() -> None:
    """The clock was ahead when it was issued, and has been put right."""
    schedule = Schedule(middle)
    schedule.want("a", 10 * DAY)
    schedule.step(10 * DAY)
    schedule.fetched("a", 10 * DAY, 11 * DAY, 10 * DAY)
    assert schedule.step(10 * DAY).fetch == ()
    assert schedule.step(10 * DAY - 30).fetch == (), "clocks of a CA and its clients differ a little"
    assert schedule.step(5 * DAY).fetch == ("a",)


def test_a_clock_put_back_does_not_prolong_a_back_off() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 10 * DAY)
    schedule.step(10 * DAY)
    schedule.failed("a", "down", 10 * DAY)
    wake = schedule.step(9 * DAY).wake
    assert wake is not None
    assert wake <= 9 * DAY + 1.2 * LONGEST_RETRY


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_moves_renewal_by_at_most_a_twentieth_of_the_life(draw: float) -> None:
    schedule = Schedule(lambda: draw)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.fetched("a", 0, DAY, 0)
    wake = schedule.step(0).wake
    assert wake is not None
    assert 0.45 * DAY <= wake <= 0.55 * DAY


def test_a_failed_renewal_keeps_the_valid_certificate_and_backs_off() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.fetched("a", 0, 1000, 0)
    now, waits = 500.0, []
    for _ in range(12):
        assert schedule.step(now).fetch == ("a",)
        assert schedule.failed("a", "down", now) is (now >= 1000)
        assert schedule.state("a", now) == ("Available" if now < 1000 else "Unavailable: down")
        wake = schedule.step(now).wake
        assert wake is not None
        waits.append(wake - now)
        now = wake
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == LONGEST_RETRY


def test_back_off_is_per_identity() -> None:
    schedule = Schedule(middle)
    schedule.want("bad", 0)
    schedule.step(0)
    schedule.failed("bad", "no", 0)
    schedule.want("good", 0)
    assert schedule.step(0).fetch == ("good",)


def test_a_success_ends_the_back_off() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    for now in (0.0, 1.0, 3.0):
        schedule.step(now)
        schedule.failed("a", "no", now)
    schedule.step(7)
    schedule.fetched("a", 7, 107, 7)
    schedule.step(57)
    schedule.failed("a", "no", 57)
    assert schedule.step(57).wake == 58


def test_at_most_eight_requests_are_out_and_waiting_connections_go_first() -> None:
    schedule = Schedule(middle)
    for number in range(12):
        schedule.want(f"warm{number:02}", 0)
    schedule.want("real", 0, Priority.REAL_TIME)
    first = schedule.step(0).fetch
    assert len(first) == 8
    assert first[0] == "real"
    assert schedule.step(0).fetch == ()
    schedule.fetched("real", 0, DAY, 0)
    assert len(schedule.step(0).fetch) == 1


def test_an_answer_for_a_forgotten_identity_is_dropped_and_its_slot_is_free_again() -> None:
    schedule = Schedule(middle, outstanding=1)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.forget("a")
    schedule.want("b", 0)
    assert schedule.step(0).fetch == ()
    assert not schedule.fetched("a", 0, DAY, 1)
    assert schedule.step(1).fetch == ("b",)


def test_an_identity_wanted_again_while_its_request_is_out_is_not_asked_for_twice() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.forget("a")
    schedule.want("a", 1)
    assert schedule.step(1).fetch == ()
    assert schedule.fetched("a", 0, DAY, 2)


def test_a_certificate_of_seconds_does_not_become_a_busy_loop() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.fetched("a", 0, 10, 9.9)
    wake = schedule.step(9.9).wake
    assert wake is not None
    assert wake >= 10.9


def test_hurry_brings_back_what_had_failed() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    schedule.step(0)
    schedule.failed("a", "no", 0)
    schedule.hurry(0.1)
    assert schedule.step(0.1).fetch == ("a",)


def test_states_are_named_as_the_dump_names_them() -> None:
    schedule = Schedule(middle)
    schedule.want("a", 0)
    assert schedule.state("a", 0) == "Initializing"
    schedule.step(0)
    schedule.fetched("a", 0, 10, 0)
    assert schedule.state("a", 5) == "Available"
    assert schedule.state("a", 11) == "Unavailable: the certificate has expired"


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: no double request, never over the bound, never late for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(middle, outstanding=3)
        self.now = 0.0
        self.out: list[str] = []

    @rule(identity=st.sampled_from("abcdef"))
    def want(self, identity: str) -> None:
        self.schedule.want(identity, self.now)

    @rule(identity=st.sampled_from("abcdef"))
    def forget(self, identity: str) -> None:
        self.schedule.forget(identity)

    @rule(life=st.floats(1, 1e5))
    def fetched(self, life: float) -> None:
        if self.out:
            self.schedule.fetched(self.out.pop(0), self.now, self.now + life, self.now)

    @rule()
    def failed(self) -> None:
        if self.out:
            identity = self.out.pop(0)
            valid = self.schedule.valid(identity, self.now)
            self.schedule.failed(identity, "no", self.now)
            assert self.schedule.valid(identity, self.now) == valid

    @rule(seconds=st.floats(0, 1e4))
    def step(self, seconds: float) -> None:
        self.now += seconds
        step = self.schedule.step(self.now)
        assert not set(step.fetch) & set(self.out)
        assert step.wake is None or step.wake > self.now
        self.out += step.fetch

    @invariant()
    def within_bounds(self) -> None:
        assert len(self.out) <= 3
        waiting = self.schedule.identities - set(self.out)
        if waiting and len(self.out) < 3:
            step = self.schedule.step(self.now)
            self.out += step.fetch
            # With requests out it may be one of their answers that is waited for.
            assert step.fetch or step.wake is not None or self.out


TestAnyHistory = AnyHistory.TestCase


def test_identities_that_fail_leave_room_for_the_others_even_when_the_ca_lets_them_hang() -> None:
    schedule = Schedule(lambda: 0.5)
    for number in range(20):
        schedule.want(f"bad-{number}", 0.0, Priority.REAL_TIME)
    now = 0.0
    while len(schedule.step(now).fetch):
        for number in range(20):
            schedule.failed(f"bad-{number}", "no", now)
    now = 1000.0
    hanging = schedule.step(now).fetch
    assert len(hanging) == AGAIN
    schedule.want("good", now, Priority.BACKGROUND)
    assert schedule.step(now).fetch == ("good",)
    assert schedule.step(now + 5).fetch == ()
    schedule.failed(hanging[0], "no", now + 5)
    assert len(schedule.step(now + 5).fetch) == 1


def test_a_changed_root_renews_every_certificate_soon_but_not_in_one_breath() -> None:
    draws = iter([0.5, 0.5, 0.0, 0.8, 0.0])
    schedule = Schedule(lambda: next(draws))
    for identity in ("a", "b"):
        schedule.want(identity, 0.0)
        schedule.step(0.0)
        schedule.fetched(identity, 0.0, 86400.0, 0.0)
    schedule.want("new", 0.0)
    schedule.renew_all(100.0)
    assert set(schedule.step(100.0).fetch) == {"a", "new"}
    assert schedule.step(107.9).fetch == ()
    assert schedule.step(108.1).fetch == ("b",)
    assert schedule.expiries() == {"a": (0.0, 86400.0), "b": (0.0, 86400.0)}
