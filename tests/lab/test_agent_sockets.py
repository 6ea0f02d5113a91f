"""Listing and ending TCP connections of a namespace, and looking into a pod's namespace, on a real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.agent import podns
from ambient.agent.podns import absent_addresses, end, open_netns, record_older, sockets
from ambient.datapath.sockets import TcpSocket, TcpState, destroy_tcp, open_diag
from ambient.errors import Unavailable
from ambient.model.address import PROXY_MARK, Endpoint
from ambient.netns import entered
from tests.support.agent_lab import settled_world
from tests.support.capture_world import World, family_of


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with settled_world(f"amb-ags-{os.getpid()}") as made:
        yield made


class Pair:
    """A connection from `pod` to `other`, both ends here."""

    def __init__(self, world: World, version: int, *, dual: bool = False, mark: int = 0) -> None:
        family = socket.AF_INET6 if dual else family_of(version)
        target = world.other.ip(version)
        with world.socket(world.other, family) as listener:
            if dual:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::" if dual else str(target), 0))
            listener.listen(1)
            self.client = world.socket(world.pod, family_of(version))
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            self.client.settimeout(5)
            self.client.connect((str(target), listener.getsockname()[1]))
            self.server, _ = listener.accept()
        host, port = self.client.getsockname()[:2]
        self.local = Endpoint(ip_address(host), port)
        self.remote = Endpoint(target, self.client.getpeername()[1])

    def close(self) -> None:
        self.client.close()
        self.server.close()


def find(found: list[TcpSocket], local: Endpoint) -> TcpSocket | None:
    return next((one for one in found if one.local == local), None)


@pytest.mark.parametrize(("version", "dual"), [(4, False), (6, False), (4, True)])
def test_both_ends_are_listed_in_their_own_namespace_only(world: World, version: int, dual: bool) -> None:
    pair = Pair(world, version, dual=dual, mark=0x77)
    client = find(sockets(world.pod.netns), pair.local)
    server = find(sockets(world.other.netns), pair.remote)
    assert client is not None
    assert server is not None
    assert (client.remote, client.state, client.mark) == (pair.remote, TcpState.ESTABLISHED, 0x77)
    assert (server.remote, server.mark) == (pair.local, 0)
    assert client.cgroup == world.cgroup_id("app")
    assert client.inode == os.fstat(pair.client.fileno()).st_ino
    assert find(sockets(world.outside.netns), pair.local) is None
    pair.close()


@pytest.mark.parametrize(("version", "dual"), [(4, False), (6, False), (4, True)])
def test_the_very_connection_is_ended_and_no_other(world: World, version: int, dual: bool) -> None:
    pair, other = Pair(world, version, dual=dual), Pair(world, version, dual=dual)
    server = find(sockets(world.other.netns), pair.remote)
    assert server is not None
    assert end(world.other.netns, [server]) == [server]
    assert end(world.other.netns, [server]) == []
    with pytest.raises(ConnectionError):
        pair.server.recv(1)
    with pytest.raises(ConnectionError):
        pair.client.recv(1)
    other.client.sendall(b"x")
    assert other.server.recv(1) == b"x"
    pair.close()
    other.close()


def test_a_connection_with_another_cookie_is_not_touched(world: World) -> None:
    pair = Pair(world, 4)
    server = find(sockets(world.other.netns), pair.remote)
    assert server is not None
    stale = TcpSocket(
        family=server.family, state=server.state, local=server.local, remote=server.remote, cookie=server.cookie + 1
    )
    with entered(world.other.netns), open_diag() as diag:
        assert not destroy_tcp(diag, stale)
    pair.client.sendall(b"x")
    assert pair.server.recv(1) == b"x"
    pair.close()


def test_a_thousand_connections_are_all_listed(world: World) -> None:
    with world.socket(world.other, socket.AF_INET) as listener:
        listener.bind((str(world.other.ip(4)), 0))
        listener.listen(1024)
        clients = [world.socket(world.pod, socket.AF_INET) for _ in range(400)]
        for client in clients:
            client.connect(listener.getsockname())
        assert len(sockets(world.pod.netns)) >= 400
        assert len(end(world.pod.netns, sockets(world.pod.netns))) >= 400
        assert sockets(world.pod.netns) == []
        for client in clients:
            client.close()


def test_what_goes_through_the_proxy_is_not_older(world: World) -> None:
    direct, marked = Pair(world, 4), Pair(world, 4, mark=PROXY_MARK)
    older = record_older(world.pod.netns, [world.pod.ip(4), world.pod.ip(6)])
    assert [(one.local, one.inbound) for one in older] == [(str(direct.local), False)]
    direct.close()
    marked.close()


def test_a_namespace_knows_its_addresses(world: World) -> None:
    own = [world.pod.ip(4), world.pod.ip(6)]
    assert absent_addresses(world.pod.netns, own) == []
    assert absent_addresses(world.pod.netns, [*own, world.other.ip(4), world.other.ip(6)]) == [
        world.other.ip(4),
        world.other.ip(6),
    ]


def test_a_namespace_is_known_by_a_cookie_that_is_never_used_again(world: World) -> None:
    first, again = (open_netns(f"/run/netns/{world.prefix}-pod") for _ in range(2))
    other = open_netns(f"/run/netns/{world.prefix}-other")
    assert first.cookie == again.cookie != other.cookie
    for netns in (first, again, other):
        netns.close()


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/null", "/run/netns/amb-nobody", "/"])
def test_only_a_namespace_of_a_pods_own_will_do(path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Unavailable):
        open_netns(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_range_of_client_ports_is_the_namespaces_own(world: World) -> None:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    with entered(world.outside.netns):
        setting.write_text("40000 40999")
        assert podns._ephemeral() == range(40000, 41000)
    assert podns._ephemeral() != range(40000, 41000)
