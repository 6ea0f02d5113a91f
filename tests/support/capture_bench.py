"""The tools of a capture test: enrol, attach, connect, count. What is made through a Bench is closed after the test."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from ambient.datapath import pod_net, programs
from ambient.datapath.layout import Counter, FailMode, Flag, PodRow
from ambient.datapath.maps import Maps
from ambient.datapath.sockets import OPEN_STATES, TcpSocket, TcpState, list_tcp, open_diag
from ambient.model.address import Endpoint
from ambient.netns import entered
from tests.support.capture_world import GIVE_UP, Place, World, family_of
from tests.support.stand_in import App, StandIn
from tests.support.waiting import until

ETH_P_ALL = 3
EVERY_WAY = pytest.mark.parametrize("via", ["tcx", "clsact"], indirect=True)
"""Mark of a module whose tests hold however programs come onto interfaces."""
NAMED = pytest.mark.parametrize("bpffs", ["bcc-named", "object-named"], indirect=True)
"""Mark of tests of the form of the programs that finds ztunnel's listeners by name (`ambient.datapath.tc_sockets`)."""
EVERY_FORM = pytest.mark.parametrize("bpffs", ["bcc", "object", "bcc-named", "object-named"], indirect=True)
"""Mark of those that are to hold in both forms."""
FULL = Flag.CAPTURE_OUT | Flag.CAPTURE_IN | Flag.HBONE_IN | Flag.DNS


@dataclass
class Bench:
    """One pod of the world with our programs on it, and the tools of a test. Everything made here is closed after."""

    world: World
    bpffs: Path
    maps: Maps
    stack: contextlib.ExitStack
    via: programs.Via = "tcx"

    def enrol(
        self,
        place: Place,
        flags: Flag = FULL,
        *,
        fail_in: FailMode = FailMode.CLOSED,
        fail_out: FailMode = FailMode.CLOSED,
        check_source: bool = True,
    ) -> None:
        """Put the rows of the pod's addresses."""
        link = pod_net.peer_ifindex(place.netns) if check_source else 0
        for text in place.addresses:
            self.maps.pods.put(place.ip(text), PodRow(flags, fail_in, fail_out, 1, link))

    def attach(self, place: Place, flags: Flag = FULL, *, host: bool = True) -> None:
        self.enrol(place, flags)
        undo = pod_net.prepare(place.netns)
        self.stack.callback(pod_net.restore, place.netns, undo)
        programs.attach_pod(self.bpffs, place.netns, place.name, via=self.via)
        self.stack.callback(programs.detach_pod, self.bpffs, place.name)
        if host:
            programs.attach_host(self.bpffs, self.world.node.netns, place.name, place.host_interface, self.via)

    def stand_in(self, place: Place, *, owner: str = "ztunnel", names: bool = False) -> StandIn:
        made = StandIn(self.world, place, owner=owner, names=names)
        self.stack.callback(made.close)
        return made

    def app(self, place: Place, version: int, port: int = 0) -> App:
        made = App(self.world, place, version, port)
        self.stack.callback(made.close)
        return made

    def socket(
        self, place: Place, version: int, kind: int = socket.SOCK_STREAM, protocol: int = 0, *, owner: str = "app"
    ) -> socket.socket:
        made = self.world.socket(place, family_of(version), kind, protocol, owner=owner)
        self.stack.callback(made.close)
        return made

    def connect(
        self,
        place: Place,
        target: Endpoint,
        *,
        owner: str = "app",
        mark: int = 0,
        source_port: int = 0,
        patience: float = 5.0,
    ) -> socket.socket:
        """A connected client. Raises OSError (TimeoutError when the kernel is silent)."""
        made = self.socket(place, target.ip.version, owner=owner)
        if mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((str(place.ip(target.ip.version)), source_port))
        made.settimeout(patience)
        made.connect((str(target.ip), target.port))
        made.settimeout(5.0)
        return made

    def refused(self, place: Place, target: Endpoint, *, owner: str = "app", mark: int = 0) -> bool:
        """Nothing answers a connection attempt."""
        try:
            self.connect(place, target, owner=owner, mark=mark, patience=GIVE_UP)
        except TimeoutError:
            return True
        return False

    def count(self, reason: Counter) -> int:
        return self.maps.counters.read()[reason]


def used_up(bench: Bench, place: Place, target: Endpoint, source_port: int, *, patience: float = 5.0) -> None:
    """A connection from `place` on this four-tuple that the pod's stand-in has closed: its end is in TIME_WAIT, and
    nothing is left of the other."""
    client = bench.connect(place, target, source_port=source_port, patience=patience)
    assert client.recv(10) == b""
    client.close()
    until(lambda: source_port in {one.remote.port for one in _streams(bench.world.pod, TcpState.TIME_WAIT)})
    until(lambda: source_port not in {one.local.port for one in _streams(place, *OPEN_STATES)})


def _streams(place: Place, *states: TcpState) -> list[TcpSocket]:
    with entered(place.netns):
        diag = open_diag()
    with diag:
        return list_tcp(diag, states)


def outside_saw(bench: Bench, version: int, token: bytes, send: Callable[[], None]) -> bool:
    """Did a packet with `token` in it reach the outside when `send` ran? A datagram sent after it ends the wait; use
    the fixture `one_cpu`, or they may pass each other."""
    world, after = bench.world, secrets.token_bytes(8)
    with world.inside(world.outside, "app"):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sniffer.bind(("eth0", ETH_P_ALL))
        sniffer.settimeout(5)
    last = bench.socket(world.pod, version, socket.SOCK_DGRAM)
    with sniffer:
        last.sendto(b"resolve the neighbours first", (str(world.outside.ip(version)), 9))
        send()
        last.sendto(after, (str(world.outside.ip(version)), 9))
        seen = False
        while after not in (received := sniffer.recv(65536)):
            seen = seen or token in received
        return seen


def link_local(place: Place) -> IPv6Address:
    """That of its eth0."""
    with entered(place.netns):
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    (found,) = [line.split()[0] for line in lines if line.startswith("fe80") and line.endswith("eth0")]
    return IPv6Address(bytes.fromhex(found))


def greeting(client: socket.socket) -> Endpoint:
    """Whom the application at the other end sees."""
    with client.makefile("r") as lines:
        ip, port = lines.readline().split()
    return Endpoint(ip_address(ip), int(port))


def echoed(client: socket.socket, data: bytes) -> bool:
    client.sendall(data)
    back = b""
    while len(back) < len(data):
        more = client.recv(65536)
        if not more:
            return False
        back += more
    return back == data
