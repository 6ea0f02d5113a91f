"""A four-tuple that ztunnel closed a moment ago (TIME_WAIT on its side) is good for the next connection at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ambient.datapath import bpfsys
from ambient.datapath.layout import Flag
from ambient.model.address import Endpoint
from tests.support.capture_bench import EVERY_FORM, EVERY_WAY, Bench, greeting, used_up
from tests.support.stand_in import StandIn
from tests.support.waiting import until

pytestmark = [EVERY_WAY, EVERY_FORM]

BEFORE_REPETITION = 0.9
"""Seconds; a SYN that was dropped is repeated after one."""
PORT = 81
"""Nobody listens: the stand-in closes first, so that the TIME_WAIT is on its side."""


def _again_and_again(bench: Bench, proxy: StandIn, version: int, source_port: int) -> None:
    target = Endpoint(bench.world.pod.ip(version), PORT)
    for round_number in range(5):
        used_up(bench, bench.world.outside, target, source_port, patience=BEFORE_REPETITION)
        assert proxy.seen.get(timeout=30).destination == target, round_number


def test_into_the_pod(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    _again_and_again(bench, bench.stand_in(bench.world.pod), version, 25_600)


def test_out_of_the_pod(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.outside.ip(version), PORT)
    for round_number in range(5):
        used_up(bench, bench.world.pod, target, 25_601, patience=BEFORE_REPETITION)
        assert proxy.seen.get(timeout=30).destination == target, round_number


def test_sabotage_without_the_look_up_it_would_be_the_applications(bench: Bench, version: int) -> None:
    """Shows that the packet does not go to the listener by itself: the application's would get it."""
    bench.attach(bench.world.pod)
    _again_and_again(bench, bench.stand_in(bench.world.pod), version, 25_602)
    bench.app(bench.world.pod, version, PORT)
    pin = bench.bpffs / "pods" / "pod" / "pod_lookup"
    bpfsys.detach_link(pin)
    pin.unlink()
    client = bench.connect(bench.world.outside, Endpoint(bench.world.pod.ip(version), PORT), source_port=25_602)
    assert greeting(client) == Endpoint(bench.world.outside.ip(version), 25_602)


def test_the_application_never_gets_a_reborn_connection(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    _again_and_again(bench, proxy, version, 25_603)
    bench.app(bench.world.pod, version, PORT)
    client = bench.connect(bench.world.outside, Endpoint(bench.world.pod.ip(version), PORT), source_port=25_603)
    assert proxy.seen.get(timeout=30).source == Endpoint(bench.world.outside.ip(version), 25_603)
    assert greeting(client).port != 25_603


def test_after_release_a_direct_connection_may_have_the_four_tuple_of_a_proxied_one(bench: Bench, version: int) -> None:
    """What follows its SYN must not be looped to what is left of the proxy's."""
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    out = Endpoint(bench.world.outside.ip(version), PORT)
    used_up(bench, bench.world.pod, out, 25_604)
    assert proxy.seen.get(timeout=30).destination == out
    _again_and_again(bench, proxy, version, 25_605)
    bench.enrol(bench.world.pod, Flag.HBONE_IN)
    outer, inner = bench.app(bench.world.outside, version, PORT), bench.app(bench.world.pod, version, PORT)
    direct = bench.connect(bench.world.pod, outer.address, source_port=25_604, patience=BEFORE_REPETITION)
    assert greeting(direct) == Endpoint(bench.world.pod.ip(version), 25_604)
    direct = bench.connect(bench.world.outside, inner.address, source_port=25_605, patience=BEFORE_REPETITION)
    assert greeting(direct) == Endpoint(bench.world.outside.ip(version), 25_605)
    assert proxy.seen.empty()


@contextlib.contextmanager
def _named(bench: Bench) -> Iterator[bpfsys.Map]:
    """The sockets that reservations can name, in either form."""
    maps = bench.bpffs / "maps"
    table = bpfsys.Map(maps / "listeners" if (maps / "listeners").exists() else maps / "reborn", 8, 8)
    try:
        yield table
    finally:
        table.close()


def test_a_listener_has_one_name_for_all_that_it_is_given_and_takes_it_along(bench: Bench) -> None:
    """So that nothing is left of what was noted and never used, however many note at once."""
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    with _named(bench) as table:
        _again_and_again(bench, proxy, 4, 25_606)
        before = sorted(table.walk())
        assert before
        for source_port in (25_607, 25_608):
            _again_and_again(bench, proxy, 4, source_port)
        assert sorted(table.walk()) == before
        proxy.close()
        until(lambda: not list(table.walk()))
