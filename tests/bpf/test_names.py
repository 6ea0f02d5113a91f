"""Name queries of a pod with the DNS flag reach ztunnel's 15053 and are answered from the address that was asked."""

from __future__ import annotations

import socket

import pytest

from ambient.datapath.layout import Counter, Flag
from ambient.model.address import DNS_PORT, Endpoint
from tests.support.capture_bench import FULL, GIVE_UP, Bench
from tests.support.stand_in import Seen, endpoint


def _ask(bench: Bench, server: Endpoint, *, connected: bool = True, source_port: int = 0) -> bytes:
    client = bench.socket(bench.world.pod, server.ip.version, socket.SOCK_DGRAM)
    if source_port:
        client.bind((str(bench.world.pod.ip(server.ip.version)), source_port))
    client.settimeout(5)
    if connected:
        client.connect((str(server.ip), server.port))
        client.send(b"who?")
    else:
        client.sendto(b"who?", (str(server.ip), server.port))
    data, sender = client.recvfrom(4096)
    assert endpoint(sender) == server
    return data


def test_a_query_is_answered_by_the_proxy_in_the_servers_name(bench: Bench, version: int) -> None:
    proxy = bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    server = Endpoint(bench.world.outside.ip(version), 53)
    before = bench.count(Counter.DNS_UDP)
    for connected in (True, False):
        assert _ask(bench, server, connected=connected) == f"who? {server}".encode()
        seen = proxy.seen.get(timeout=30)
        assert (seen.port, seen.source.ip, seen.destination) == (DNS_PORT, bench.world.pod.ip(version), server)
    assert bench.count(Counter.DNS_UDP) == before + 2


def test_a_query_over_tcp_reaches_the_same_port(bench: Bench, version: int) -> None:
    proxy = bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    server = Endpoint(bench.world.outside.ip(version), 53)
    client = bench.connect(bench.world.pod, server)
    assert client.recv(16) == b"names\n"
    assert proxy.seen.get(timeout=30) == Seen(DNS_PORT, endpoint(client.getsockname()), server)


def test_a_query_is_none_of_an_open_connection_of_the_same_ports(bench: Bench, version: int) -> None:
    bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    server = Endpoint(bench.world.outside.ip(version), 53)
    client = bench.connect(bench.world.pod, server)
    assert client.recv(16) == b"names\n"
    assert _ask(bench, server, source_port=client.getsockname()[1]) == f"who? {server}".encode()


def _real_server(bench: Bench, version: int) -> socket.socket:
    server = bench.socket(bench.world.outside, version, socket.SOCK_DGRAM)
    server.bind((str(bench.world.outside.ip(version)), 53))
    server.settimeout(5)
    return server


def test_without_the_flag_or_without_the_listener_queries_go_where_they_were_sent(bench: Bench, version: int) -> None:
    server = _real_server(bench, version)
    target = (str(bench.world.outside.ip(version)), 53)
    client = bench.socket(bench.world.pod, version, socket.SOCK_DGRAM)
    bench.attach(bench.world.pod)
    client.sendto(b"no listener", target)
    assert server.recv(64) == b"no listener"
    bench.stand_in(bench.world.pod, names=True)
    bench.enrol(bench.world.pod, FULL & ~Flag.DNS)
    client.sendto(b"no flag", target)
    assert server.recv(64) == b"no flag"


def test_other_datagrams_are_not_ours(bench: Bench, version: int) -> None:
    server = bench.socket(bench.world.outside, version, socket.SOCK_DGRAM)
    server.bind((str(bench.world.outside.ip(version)), 5353))
    server.settimeout(5)
    bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    client = bench.socket(bench.world.pod, version, socket.SOCK_DGRAM)
    client.sendto(b"hello", (str(bench.world.outside.ip(version)), 5353))
    data, sender = server.recvfrom(64)
    assert data == b"hello"
    server.sendto(b"back", sender)
    client.settimeout(5)
    assert client.recv(64) == b"back"


def test_the_proxys_own_queries_leave_the_pod(bench: Bench, version: int) -> None:
    server = _real_server(bench, version)
    bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    own = bench.socket(bench.world.pod, version, socket.SOCK_DGRAM, owner="ztunnel")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x539)
    own.sendto(b"upstream", (str(bench.world.outside.ip(version)), 53))
    assert server.recv(64) == b"upstream"


def test_the_network_cannot_ask_the_proxy(bench: Bench, version: int) -> None:
    proxy = bench.stand_in(bench.world.pod, names=True)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.REFUSED_PROXY_PORT)
    stranger = bench.socket(bench.world.outside, version, socket.SOCK_DGRAM)
    stranger.settimeout(GIVE_UP)
    stranger.sendto(b"who?", (str(bench.world.pod.ip(version)), DNS_PORT))
    with pytest.raises(TimeoutError):
        stranger.recv(64)
    assert bench.count(Counter.REFUSED_PROXY_PORT) == before + 1
    assert proxy.seen.empty()
