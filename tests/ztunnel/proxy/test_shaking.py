"""Which of too many handshakes makes way."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.address import Endpoint, parse_ip
from ztunnel.proxy.shaking import CROWD, CROWDING_S, STALLED_S, Shaking


@dataclass(eq=False)
class One:
    source: Endpoint
    born: float
    computing: bool = False
    delayed: float = 0.0


def one(ip: str, born: float) -> One:
    return One(Endpoint(parse_ip(ip), 1), born)


def shaking(*ones: One) -> Shaking[One]:
    found: Shaking[One] = Shaking()
    for each in ones:
        found.add(each)
    return found


def test_nobody_makes_way_where_nobody_is() -> None:
    assert shaking().stalled(1e9) is None


def test_the_oldest_of_several_addresses_goes_when_it_has_stalled() -> None:
    young, old = one("10.0.0.1", 2.0), one("10.0.0.2", 1.0)
    both = shaking(young, old)
    assert both.stalled(1.0 + STALLED_S) is None
    assert both.stalled(1.1 + STALLED_S) is old


def test_the_address_that_has_most_goes_before_an_older_peer() -> None:
    quiet, first, second = one("10.0.0.1", 0.0), one("10.0.0.2", 5.0), one("10.0.0.2", 5.1)
    all_of_them = shaking(quiet, first, second)
    assert all_of_them.stalled(5.5) is None, "the quiet one is old, but in nobody's way"
    assert all_of_them.stalled(5.1 + STALLED_S) is first


def test_a_crowd_is_waited_for_less_long_than_a_few() -> None:
    few = [one("10.0.0.1", 0.0) for _ in range(CROWD)]
    assert shaking(*few).stalled(2 * CROWDING_S) is None
    crowd = shaking(*few, one("10.0.0.1", 0.0))
    assert crowd.stalled(CROWDING_S) is None
    assert crowd.stalled(2 * CROWDING_S) is few[0]


def test_who_waits_for_us_does_not_make_way() -> None:
    first, second = one("10.0.0.1", 0.0), one("10.0.0.1", 0.5)
    both = shaking(first, second)
    first.computing = True
    assert both.stalled(9.0) is second
    second.computing = True
    assert both.stalled(9.0) is None


def test_what_a_peer_waited_for_us_is_not_held_against_it() -> None:
    first, second = one("10.0.0.1", 0.0), one("10.0.0.1", 0.5)
    both = shaking(first, second)
    first.delayed = 2.0
    assert both.stalled(0.6 + STALLED_S) is second
    both.remove(second)
    assert both.stalled(2.0 + STALLED_S) is None
    assert both.stalled(2.1 + STALLED_S) is first


def test_who_is_done_is_no_longer_counted_and_only_once() -> None:
    done, next_one = one("10.0.0.1", 0.0), one("10.0.0.1", 0.5)
    left = shaking(done, next_one)
    assert left.remove(done)
    assert not left.remove(done)
    assert left.stalled(9.0) is next_one
    assert left.remove(next_one)
    assert left.stalled(9.0) is None
