"""Without a listener new connections are refused and counted, unless the row says open; a listener heals at once."""

from __future__ import annotations

import socket

from ambient.datapath import pod_net
from ambient.datapath.layout import Counter, FailMode, Flag
from ambient.model.address import DNS_PORT, HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, Endpoint
from tests.support.capture_bench import EVERY_WAY, FULL, Bench, echoed, greeting, link_local
from tests.support.waiting import until

pytestmark = EVERY_WAY


def test_out_is_refused_without_a_listener_and_works_with_the_next_one(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.REFUSED_NO_LISTENER_OUT)
    assert bench.refused(bench.world.pod, server.address)
    assert bench.count(Counter.REFUSED_NO_LISTENER_OUT) > before
    proxy = bench.stand_in(bench.world.pod)
    assert echoed_after_greeting(bench, server.address)
    proxy.stop_listening()
    assert bench.refused(bench.world.pod, server.address)


def echoed_after_greeting(bench: Bench, target: Endpoint) -> bool:
    client = bench.connect(bench.world.pod, target)
    assert greeting(client).ip == bench.world.pod.ip(target.ip.version)
    return echoed(client, b"hello")


def test_a_connection_attempt_survives_the_gap_between_two_proxies(bench: Bench, version: int) -> None:
    """The SYN is dropped, not answered: its repetition finds the new listener."""
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    client = bench.socket(bench.world.pod, version)
    client.setblocking(False)
    client.connect_ex((str(server.address.ip), server.address.port))
    bench.stand_in(bench.world.pod)
    client.settimeout(5)
    assert greeting(client).ip == bench.world.pod.ip(version)


def test_in_is_refused_without_a_listener_and_works_with_the_next_one(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.REFUSED_NO_LISTENER_IN)
    assert bench.refused(bench.world.outside, server.address)
    assert bench.refused(bench.world.outside, Endpoint(server.address.ip, HBONE_PORT))
    assert bench.count(Counter.REFUSED_NO_LISTENER_IN) >= before + 2
    bench.stand_in(bench.world.pod)
    assert greeting(bench.connect(bench.world.outside, server.address)).ip == bench.world.outside.ip(version)


def test_open_rows_pass_directly_and_are_counted(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    bench.enrol(bench.world.pod, FULL, fail_in=FailMode.OPEN, fail_out=FailMode.OPEN)
    before = bench.count(Counter.PASSED_OPEN_IN), bench.count(Counter.PASSED_OPEN_OUT)
    greeting(bench.connect(bench.world.pod, outer.address))
    greeting(bench.connect(bench.world.outside, inner.address))
    assert (bench.count(Counter.PASSED_OPEN_IN), bench.count(Counter.PASSED_OPEN_OUT)) == (before[0] + 1, before[1] + 1)


def test_the_two_directions_fail_each_as_its_own_mode_says(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    bench.enrol(bench.world.pod, FULL, fail_in=FailMode.OPEN)
    assert bench.refused(bench.world.pod, outer.address)
    greeting(bench.connect(bench.world.outside, inner.address))
    bench.enrol(bench.world.pod, FULL, fail_out=FailMode.OPEN)
    greeting(bench.connect(bench.world.pod, outer.address))
    assert bench.refused(bench.world.outside, inner.address)


def test_an_application_on_ztunnels_port_is_not_taken_for_ztunnel(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.app(bench.world.pod, version, OUTBOUND_PORT)
    bench.app(bench.world.pod, version, PLAINTEXT_PORT)
    bench.attach(bench.world.pod)
    assert bench.refused(bench.world.pod, server.address)
    assert bench.refused(bench.world.outside, Endpoint(bench.world.pod.ip(version), 80))


def test_a_released_pods_inner_ports_are_closed_to_the_network(bench: Bench, version: int) -> None:
    bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod, Flag.HBONE_IN)
    before = bench.count(Counter.REFUSED_PROXY_PORT)
    for port in (OUTBOUND_PORT, PLAINTEXT_PORT, DNS_PORT):
        assert bench.refused(bench.world.outside, Endpoint(bench.world.pod.ip(version), port))
    assert bench.count(Counter.REFUSED_PROXY_PORT) >= before + 3


def test_ztunnels_port_for_names_is_closed_to_neighbours_whatever_address_they_use(bench: Bench) -> None:
    """By a link-local address, which has no row; the node speaks for them."""
    bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    neighbour = bench.socket(bench.world.node, 6, socket.SOCK_DGRAM)
    neighbour.settimeout(5)
    before = bench.count(Counter.REFUSED_PROXY_PORT)
    neighbour.sendto(
        b"who?", (str(link_local(bench.world.pod)), DNS_PORT, 0, pod_net.peer_ifindex(bench.world.pod.netns))
    )
    until(lambda: bench.count(Counter.REFUSED_PROXY_PORT) == before + 1)


def test_connecting_to_an_inner_port_from_outside_is_captured_like_any_other(bench: Bench, version: int) -> None:
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(version), OUTBOUND_PORT)
    client = bench.connect(bench.world.outside, target)
    seen = proxy.seen.get(timeout=30)
    assert (seen.port, seen.destination) == (PLAINTEXT_PORT, target)
    client.close()


def test_what_a_pod_sends_to_itself_stays_its_own(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    assert greeting(bench.connect(bench.world.pod, server.address)).ip == bench.world.pod.ip(version)
    assert proxy.seen.empty()


def test_a_held_connection_to_the_proxys_port_does_not_hide_the_listener(bench: Bench, version: int) -> None:
    """The look-up from the same source port finds that connection first, not the listener."""
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, Flag(0))
    target = Endpoint(bench.world.pod.ip(version), PLAINTEXT_PORT)
    bench.connect(bench.world.outside, target, source_port=45_222)
    bench.enrol(bench.world.pod)
    assert proxy.seen.get(timeout=30).destination == target
    bench.connect(bench.world.outside, Endpoint(target.ip, 81), source_port=45_222)
    assert proxy.seen.get(timeout=30).destination.port == 81


def test_low_and_ztunnels_own_source_ports_are_captured_too(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    for port in (1, 53, DNS_PORT, 65_535):
        client = bench.connect(bench.world.pod, server.address, source_port=port)
        assert proxy.seen.get(timeout=30).source == Endpoint(bench.world.pod.ip(version), port)
        assert greeting(client).port != port
