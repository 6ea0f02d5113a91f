"""New connections of an enrolled pod go through ztunnel's listeners with both addresses kept."""

from __future__ import annotations

from ambient.datapath.layout import Counter
from ambient.model.address import HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, Endpoint
from tests.support.capture_bench import EVERY_WAY, Bench, echoed, greeting
from tests.support.stand_in import Seen, endpoint

pytestmark = EVERY_WAY


def test_what_the_pod_connects_to_reaches_15001_with_both_addresses(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.REDIRECTED_OUT)
    client = bench.connect(bench.world.pod, server.address)
    assert proxy.seen.get(timeout=30) == Seen(OUTBOUND_PORT, endpoint(client.getsockname()), server.address)
    assert greeting(client).ip == bench.world.pod.ip(version)
    assert echoed(client, b"x" * 300_000)
    assert endpoint(client.getpeername()) == server.address
    assert bench.count(Counter.REDIRECTED_OUT) == before + 1


def test_what_connects_to_the_pod_reaches_15006_and_the_app_sees_the_client(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.REDIRECTED_IN)
    client = bench.connect(bench.world.outside, server.address)
    assert proxy.seen.get(timeout=30) == Seen(PLAINTEXT_PORT, endpoint(client.getsockname()), server.address)
    assert greeting(client).ip == bench.world.outside.ip(version)
    assert echoed(client, b"y" * 300_000)
    assert bench.count(Counter.REDIRECTED_IN) == before + 1


def test_port_15008_reaches_the_tunnel_listener(bench: Bench, version: int) -> None:
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.HBONE_IN)
    target = Endpoint(bench.world.pod.ip(version), HBONE_PORT)
    client = bench.connect(bench.world.outside, target)
    assert client.recv(16) == b"hbone\n"
    assert proxy.seen.get(timeout=30) == Seen(HBONE_PORT, endpoint(client.getsockname()), target)
    assert bench.count(Counter.HBONE_IN) == before + 1
