"""Enrolling and releasing a running pod: open connections are not touched, new ones follow the row at once."""

from __future__ import annotations

import threading

from ambient.datapath import pod_net, programs
from ambient.datapath.layout import Flag
from ambient.model.address import HBONE_PORT, Endpoint
from tests.support.capture_bench import EVERY_WAY, FULL, Bench, echoed, greeting
from tests.support.capture_world import run

pytestmark = EVERY_WAY


def test_connections_from_before_go_on_through_enrolment_and_release(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    old = [bench.connect(bench.world.pod, outer.address), bench.connect(bench.world.outside, inner.address)]
    for client in old:
        greeting(client)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, Flag(0))
    for flags in (Flag(0), FULL, Flag.HBONE_IN, FULL, Flag(0)):
        bench.enrol(bench.world.pod, flags)
        assert all(echoed(client, b"still here" * 1000) for client in old)
    programs.detach_pod(bench.bpffs, "pod")
    assert all(echoed(client, b"and after") for client in old)
    assert proxy.seen.empty()


def test_attached_with_no_flags_everything_passes(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, Flag(0))
    greeting(bench.connect(bench.world.pod, outer.address))
    greeting(bench.connect(bench.world.outside, inner.address))
    assert proxy.seen.empty()


def test_while_released_old_tunnels_go_on_and_new_connections_go_direct(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    proxied = [bench.connect(bench.world.pod, outer.address), bench.connect(bench.world.outside, inner.address)]
    for client in proxied:
        greeting(client)
        proxy.seen.get(timeout=30)
    bench.enrol(bench.world.pod, Flag.HBONE_IN)
    assert all(echoed(client, b"z" * 100_000) for client in proxied)
    greeting(bench.connect(bench.world.pod, outer.address))
    greeting(bench.connect(bench.world.outside, inner.address))
    assert proxy.seen.empty(), proxy.seen.get()
    tunnel = bench.connect(bench.world.outside, Endpoint(bench.world.pod.ip(version), HBONE_PORT))
    assert tunnel.recv(16) == b"hbone\n"


def test_no_connection_fails_while_a_pod_goes_in_and_out_of_the_mesh(bench: Bench, version: int) -> None:
    outer = bench.app(bench.world.outside, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod, Flag(0))
    stop = threading.Event()

    def turn() -> None:
        flags = FULL
        while not stop.is_set():
            bench.enrol(bench.world.pod, flags)
            flags = Flag.HBONE_IN if flags == FULL else FULL

    turning = threading.Thread(target=turn)
    clients = [bench.socket(bench.world.pod, version) for _ in range(60)]
    turning.start()
    try:
        for client in clients:
            client.settimeout(5)
            client.connect((str(outer.address.ip), outer.address.port))
            assert greeting(client).ip == bench.world.pod.ip(version)
            assert echoed(client, b"round")
    finally:
        stop.set()
        turning.join()


def test_two_pods_share_the_programs_and_are_decided_apart(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    bench.attach(bench.world.other, Flag(0))
    greeting(bench.connect(bench.world.other, server.address))
    assert proxy.seen.empty()
    bench.enrol(bench.world.other, FULL)
    assert bench.refused(bench.world.other, server.address)
    greeting(bench.connect(bench.world.pod, server.address))
    programs.detach_pod(bench.bpffs, "other")
    greeting(bench.connect(bench.world.other, server.address))
    assert set(programs.attached(bench.bpffs)) == {"pod"}


def test_pod_to_pod_passes_both_proxies(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.other, version)
    one, two = bench.stand_in(bench.world.pod), bench.stand_in(bench.world.other)
    bench.attach(bench.world.pod)
    bench.attach(bench.world.other)
    client = bench.connect(bench.world.pod, server.address)
    assert greeting(client).ip == bench.world.pod.ip(version)
    assert one.seen.get(timeout=30).destination == server.address
    assert two.seen.get(timeout=30).destination == server.address
    assert echoed(client, b"q" * 200_000)


def test_the_pods_routes_are_prepared_once_and_undone_wholly(bench: Bench) -> None:
    pod = bench.world.pod
    before = _network(bench)
    undo = pod_net.prepare(pod.netns)
    prepared = _network(bench)
    assert prepared != before
    pod_net.prepare(pod.netns)
    assert _network(bench) == prepared
    pod_net.restore(pod.netns, pod_net.PodNet.from_json(undo.as_json()))
    assert _network(bench) == before
    pod_net.restore(pod.netns, undo)
    assert _network(bench) == before


def _network(bench: Bench) -> tuple[str, ...]:
    name = f"{bench.world.prefix}-pod"
    return (
        run("nsenter", f"--net=/run/netns/{name}", "ip", "rule"),
        run("nsenter", f"--net=/run/netns/{name}", "ip", "-6", "rule"),
        run("nsenter", f"--net=/run/netns/{name}", "ip", "route", "show", "table", "all"),
        run("nsenter", f"--net=/run/netns/{name}", "ip", "-6", "route", "show", "table", "all"),
        run("nsenter", f"--net=/run/netns/{name}", "cat", "/proc/sys/net/ipv4/conf/lo/accept_local"),
    )
