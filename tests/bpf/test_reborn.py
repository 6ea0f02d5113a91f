"""A four-tuple that ztunnel closed a moment ago (TIME_WAIT on its side) is good for the next connection at once."""

from __future__ import annotations

from ambient.datapath import bpfsys
from ambient.datapath.layout import Flag
from ambient.model.address import Endpoint
from tests.support.capture_bench import EVERY_FORM, EVERY_WAY, Bench, greeting, used_up
from tests.support.stand_in import StandIn

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
    _again_and_again(bench, bench.stand_in(bench.world.pod), version, 45_600)


def test_out_of_the_pod(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.outside.ip(version), PORT)
    for round_number in range(5):
        used_up(bench, bench.world.pod, target, 45_601, patience=BEFORE_REPETITION)
        assert proxy.seen.get(timeout=30).destination == target, round_number


def test_sabotage_without_the_look_up_it_would_be_the_applications(bench: Bench, version: int) -> None:
    """Shows that the packet does not go to the listener by itself: the application's would get it."""
    bench.attach(bench.world.pod)
    _again_and_again(bench, bench.stand_in(bench.world.pod), version, 45_602)
    bench.app(bench.world.pod, version, PORT)
    pin = bench.bpffs / "pods" / "pod" / "pod_lookup"
    bpfsys.detach_link(pin)
    pin.unlink()
    client = bench.connect(bench.world.outside, Endpoint(bench.world.pod.ip(version), PORT), source_port=45_602)
    assert greeting(client) == Endpoint(bench.world.outside.ip(version), 45_602)


def test_the_application_never_gets_a_reborn_connection(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    _again_and_again(bench, proxy, version, 45_603)
    bench.app(bench.world.pod, version, PORT)
    client = bench.connect(bench.world.outside, Endpoint(bench.world.pod.ip(version), PORT), source_port=45_603)
    assert proxy.seen.get(timeout=30).source == Endpoint(bench.world.outside.ip(version), 45_603)
    assert greeting(client).port != 45_603


def test_after_release_a_direct_connection_may_have_the_four_tuple_of_a_proxied_one(bench: Bench, version: int) -> None:
    """What follows its SYN must not be looped to what is left of the proxy's."""
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    out = Endpoint(bench.world.outside.ip(version), PORT)
    used_up(bench, bench.world.pod, out, 45_604)
    assert proxy.seen.get(timeout=30).destination == out
    _again_and_again(bench, proxy, version, 45_605)
    bench.enrol(bench.world.pod, Flag.HBONE_IN)
    outer, inner = bench.app(bench.world.outside, version, PORT), bench.app(bench.world.pod, version, PORT)
    direct = bench.connect(bench.world.pod, outer.address, source_port=45_604, patience=BEFORE_REPETITION)
    assert greeting(direct) == Endpoint(bench.world.pod.ip(version), 45_604)
    direct = bench.connect(bench.world.outside, inner.address, source_port=45_605, patience=BEFORE_REPETITION)
    assert greeting(direct) == Endpoint(bench.world.outside.ip(version), 45_605)
    assert proxy.seen.empty()
