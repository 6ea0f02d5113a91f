"""Expiry is no surprise: published by number and for the first few by name, and said well before."""

from __future__ import annotations

import pytest

from ztunnel.director.expiry import MOST_NAMED, Alarm, Life, Watch, alarm, gauges, spoken

DAY = 86400.0
A, B = "spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"


@pytest.mark.parametrize(
    ("part", "level"),
    [
        (0.0, Alarm.NONE),
        (0.5, Alarm.NONE),
        (0.74, Alarm.NONE),
        (0.76, Alarm.LATE),
        (0.89, Alarm.LATE),
        (0.91, Alarm.URGENT),
        (0.999, Alarm.URGENT),
        (1.0, Alarm.EXPIRED),
        (7.0, Alarm.EXPIRED),
    ],
)
def test_a_certificate_that_was_not_renewed_becomes_more_urgent(part: float, level: Alarm) -> None:
    assert alarm(1000.0, 1000.0 + DAY, 1000.0 + part * DAY) is level


def test_each_step_is_said_once_and_again_after_a_renewal() -> None:
    watch = Watch()
    life = {A: Life(0.0, DAY), B: Life(0.0, 10 * DAY)}
    assert watch.look(life, DAY / 2) == []
    (late,) = watch.look(life, 0.8 * DAY)
    assert (late.identity, late.level) == (A, Alarm.LATE)
    assert str(late) == f"certificate for {A} was not renewed and runs out in 4 h 48 min"
    assert watch.look(life, 0.81 * DAY) == []
    assert [one.level for one in watch.look(life, 0.95 * DAY)] == [Alarm.URGENT]
    (over,) = watch.look(life, DAY + 5)
    assert over.level is Alarm.EXPIRED
    assert "has expired" in str(over)
    assert watch.look({A: Life(DAY, 2 * DAY), B: life[B]}, DAY + 6) == []
    assert [one.level for one in watch.look({A: Life(DAY, 2 * DAY)}, 1.8 * DAY)] == [Alarm.LATE]


def test_what_ends_before_the_certificate_counts_and_is_named_as_far_ahead() -> None:
    life = Life(0.5 * DAY, 1.5 * DAY)
    assert life.until(2 * DAY, "O=x") == life
    assert life.until(life.end, "") == life
    cut = {A: life.until(DAY, "O=x")}
    watch = Watch()
    assert watch.look(cut, 0.74 * DAY) == []
    (late,) = watch.look(cut, 0.8 * DAY)
    assert late.level is Alarm.LATE
    assert str(late) == f"certificate for {A} rests on authority O=x, which runs out in 4 h 48 min"
    (over,) = watch.look(cut, DAY)
    assert str(over).endswith("rests on authority O=x, which has expired")
    assert gauges(cut, 0.0)["ambient_certificate_first_expiry_timestamp_seconds"] == DAY


def test_the_most_urgent_is_said_first() -> None:
    levels = Watch().look({A: Life(0.0, DAY), B: Life(0.0, 0.5 * DAY)}, 0.9 * DAY)
    assert [one.identity for one in levels] == [B, A]


def test_metrics_name_only_the_first_to_run_out_however_many_there_are() -> None:
    many = {f"spiffe://cluster.local/ns/n/sa/{number:04}": Life(0.0, DAY + number) for number in range(1000)}
    found = gauges(many, 0.0)
    named = [name for name in found if name.startswith("ambient_certificate_expiry_timestamp_seconds{")]
    assert len(named) == MOST_NAMED
    assert named[0].endswith('sa/0000"}')
    assert found["ambient_certificates"] == 1000
    assert found["ambient_certificate_first_expiry_timestamp_seconds"] == DAY


def test_metrics_count_the_late_and_the_expired() -> None:
    found = gauges({A: Life(0.0, DAY), B: Life(0.0, 0.5 * DAY), "c": Life(0.0, 10 * DAY)}, 0.9 * DAY)
    assert (found["ambient_certificates_late"], found["ambient_certificates_expired"]) == (1, 1)
    assert gauges({}, 0.0)["ambient_certificates"] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (90000, "1 d 1 h"), (-5, "0 s"), (86400, "1 d")],
)
def test_durations_are_spoken_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
