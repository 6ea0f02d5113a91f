"""UDP and ICMP of a pod are added up by who spoke first, in both directions, and the beginning is told."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ambient.datapath import bpfinfo, bpfsys, layout
from ambient.datapath.layout import Counter, End, Flag, Option, Path
from ambient.datapath.maps import MAPS
from ambient.datapath.tallies import Line
from ambient.model.address import Endpoint
from tests.support.capture_bench import Bench
from tests.support.capture_world import Place
from tests.support.stand_in import endpoint

RELEASED = Flag(0)
TALKS_OF_A_POD = 2048
"""As in talks.h."""
HEADERS = {4: 28, 6: 48}
"""Of an UDP packet and of an ICMP query."""
QUERY, ANSWER = {4: 8, 6: 128}, {4: 0, 6: 129}
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


@pytest.fixture(autouse=True)
def fresh(bench: Bench) -> Iterator[None]:
    bench.maps.tallies.take()
    bench.maps.events.read()
    yield
    bench.maps.config.set(Option(0))


@dataclass
class Sum:
    """What the sheets say of one protocol at the pod."""

    flows: int = 0
    sent: tuple[int, int] = (0, 0)
    received: tuple[int, int] = (0, 0)
    who: set[tuple[str, str, int, bool]] = field(default_factory=set)


def tallied(bench: Bench, protocol: int, other: Endpoint) -> Sum:
    """Packets have passed when they were received; so it is on the sheet. `other`: an end of the talk."""
    lines: list[Line] = [line for line in bench.maps.tallies.take() if line.protocol == protocol]
    mine = [line for line in lines if other.ip in (line.source, line.destination)]
    return Sum(
        sum(line.flows for line in mine),
        (sum(line.packets_sent for line in mine), sum(line.bytes_sent for line in mine)),
        (sum(line.packets_received for line in mine), sum(line.bytes_received for line in mine)),
        {(str(line.source), str(line.destination), line.port, line.arriving) for line in mine},
    )


def udp(bench: Bench, place: Place, version: int) -> socket.socket:
    made = bench.socket(place, version, socket.SOCK_DGRAM)
    made.settimeout(10)
    made.bind((str(place.ip(version)), 0))
    return made


@pytest.mark.parametrize("arriving", [False, True])
def test_udp_and_its_answers_are_one_talk_of_who_spoke_first(bench: Bench, version: int, arriving: bool) -> None:
    bench.attach(bench.world.pod, RELEASED)
    here, there = bench.world.pod, bench.world.outside
    client, server = (udp(bench, place, version) for place in ((there, here) if arriving else (here, there)))
    asks, answers = endpoint(client.getsockname()), endpoint(server.getsockname())
    for _ in range(3):
        client.sendto(b"question", (str(answers.ip), answers.port))
        _, back = server.recvfrom(100)
        server.sendto(b"answer", back)
        client.recv(100)
    found = tallied(bench, socket.IPPROTO_UDP, asks)
    assert found.flows == 1
    assert found.sent == (3, 3 * (8 + HEADERS[version]))
    assert found.received == (3, 3 * (6 + HEADERS[version]))
    assert found.who == {(str(asks.ip), str(answers.ip), answers.port, arriving)}
    (told,) = [one for one in bench.maps.events.read().flows if one.source == asks]
    assert (told.destination, told.protocol, told.arriving, told.path) == (answers, 17, arriving, Path.DIRECT)
    assert told.end is End.NONE


def echo(version: int, number: int, data: bytes) -> bytes:
    head = struct.pack("!BBHHH", QUERY[version], 0, 0, number, 1) + data
    if version == 6:
        return head  # the kernel sums ICMPv6
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:]


def test_an_echo_and_its_answer_are_one_talk(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    raw = bench.socket(bench.world.pod, version, socket.SOCK_RAW, PROTOCOL[version])
    raw.settimeout(10)
    outside = bench.world.outside.ip(version)
    raw.sendto(echo(version, 77, b"12345678"), (str(outside), 0))
    while True:
        data = raw.recv(200)[20 if version == 4 else 0 :]
        if (data[0], struct.unpack_from("!H", data, 4)[0]) == (ANSWER[version], 77):
            break
    found = tallied(bench, PROTOCOL[version], Endpoint(outside, 0))
    size = 16 + HEADERS[version] - 8
    assert (found.flows, found.sent, found.received) == (1, (1, size), (1, size))
    assert found.who == {(str(bench.world.pod.ip(version)), str(outside), 0, False)}


def test_errors_of_the_network_are_nobodys_talk(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    client = udp(bench, bench.world.pod, version)
    client.connect((str(bench.world.outside.ip(version)), 9))
    client.send(b"nobody is there")
    with pytest.raises(ConnectionRefusedError):  # by the error of ICMP that came back
        client.recv(100)
    assert tallied(bench, PROTOCOL[version], Endpoint(bench.world.outside.ip(version), 0)).flows == 0


def test_nothing_is_added_up_where_the_node_is_set_so(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    bench.maps.config.set(Option.NO_FLOWS)
    client, server = udp(bench, bench.world.pod, version), udp(bench, bench.world.outside, version)
    client.sendto(b"question", server.getsockname()[:2])
    server.recv(100)
    assert tallied(bench, socket.IPPROTO_UDP, endpoint(client.getsockname())).flows == 0


def table(bench: Bench, name: str) -> bpfsys.Map:
    path = bench.bpffs / MAPS / name
    sizes = bpfinfo.map_layout(path)
    made = bpfsys.Map(path, sizes.key.size, sizes.value.size)
    bench.stack.callback(made.close)
    return made


def test_a_pod_that_begins_too_many_talks_pushes_out_nobody_elses(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    here, there = bench.world.pod.ip(version), bench.world.outside.ip(version)
    shares, talks = table(bench, "talk_shares"), table(bench, "talks")
    mine = layout.pack_address(here)

    def known() -> int:
        return sum(key.startswith(mine) for key in list(talks.walk()))

    def begin_anew() -> None:
        for key in list(shares.walk()):
            shares.delete(key)

    begin_anew()
    bench.stack.callback(begin_anew)
    before, beyond = known(), bench.count(Counter.BEYOND_SHARE_TALKS)
    client, server = udp(bench, bench.world.pod, version), udp(bench, bench.world.outside, version)
    for port in range(1, TALKS_OF_A_POD + 1):  # each is noted twice: at the pod's end and at the node's
        client.sendto(b"anybody there?", (str(there), port))
    assert bench.count(Counter.BEYOND_SHARE_TALKS) - beyond >= TALKS_OF_A_POD
    assert known() - before <= TALKS_OF_A_POD
    bench.maps.tallies.take()
    client.sendto(b"question", server.getsockname()[:2])
    _, back = server.recvfrom(100)
    server.sendto(b"answer", back)
    client.recv(100)
    found = tallied(bench, socket.IPPROTO_UDP, endpoint(server.getsockname()))
    port = endpoint(server.getsockname()).port
    assert found.who == {(str(here), str(there), port, False)}  # its answer is known as one
    assert (found.flows, found.sent[0], found.received[0]) == (1, 1, 1)
