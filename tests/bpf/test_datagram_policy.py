"""Policy for UDP and ICMP at the node's end of a pod's veth: what it refuses does not come in, answers do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from ambient.datapath import pod_net
from ambient.datapath.deny import DenyRow
from ambient.datapath.layout import Bits, Counter, Flag, Option, Side
from ambient.model.address import Endpoint
from ambient.model.deny import ANY_PORT, OTHER_PORT
from ambient.model.policy import Datagram
from tests.bpf.test_datagrams import udp
from tests.support.capture_bench import Bench, link_local
from tests.support.datagrams import INTERFACE, frame, packets, program_of, scene
from tests.support.stand_in import endpoint

EVERYBODY = (0, 0)


@pytest.fixture(autouse=True)
def no_rows_left(bench: Bench) -> Iterator[None]:
    yield
    bench.maps.deny.delete(bench.maps.deny.tables())
    bench.maps.config.set(Option(0))


def refuse(bench: Bench, version: int, side: Side, *ports: int) -> None:
    rows = [DenyRow(ANY_PORT, EVERYBODY), *(DenyRow(port, EVERYBODY, Bits.REFUSES, 1) for port in ports)]
    assert bench.maps.deny.replace({(bench.world.pod.ip(version), side): rows}) == {}


def test_what_is_refused_does_not_come_in_and_is_counted_and_told(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, Flag(0))
    closed, open_ = (udp(bench, bench.world.pod, version) for _ in range(2))
    sender = udp(bench, bench.world.outside, version)
    refuse(bench, version, Side.UDP_IN, endpoint(closed.getsockname()).port)
    bench.maps.events.read()
    before = bench.count(Counter.REFUSED_POLICY_UDP)
    sender.sendto(b"refused", closed.getsockname()[:2])
    sender.sendto(b"welcome", open_.getsockname()[:2])
    assert open_.recv(100) == b"welcome"
    assert bench.count(Counter.REFUSED_POLICY_UDP) == before + 1
    (told,) = [one for one in bench.maps.events.read().packets if one.reason is Counter.REFUSED_POLICY_UDP]
    assert (told.source, told.rule) == (endpoint(sender.getsockname()), 1)
    closed.setblocking(False)
    with pytest.raises(BlockingIOError):
        closed.recv(100)


@pytest.mark.parametrize("options", [Option(0), Option.NO_FLOWS])
def test_answers_come_in_whatever_policy_says(bench: Bench, version: int, options: Option) -> None:
    bench.attach(bench.world.pod, Flag(0))
    bench.maps.config.set(options)
    refuse(bench, version, Side.UDP_IN, OTHER_PORT)
    client, server = udp(bench, bench.world.pod, version), udp(bench, bench.world.outside, version)
    client.sendto(b"question", server.getsockname()[:2])
    _, back = server.recvfrom(100)
    server.sendto(b"answer", back)
    assert client.recv(100) == b"answer"


def test_a_question_that_another_pod_makes_up_opens_nothing(bench: Bench, version: int) -> None:
    """A frame as if the pod had asked, sent by a neighbour that may write packets: what it sends then is no answer."""
    bench.attach(bench.world.pod, Flag(0))
    bench.attach(bench.world.other, Flag(0))
    closed, neighbour = udp(bench, bench.world.pod, version), udp(bench, bench.world.other, version)
    outside = udp(bench, bench.world.outside, version)
    refuse(bench, version, Side.UDP_IN, OTHER_PORT)
    before = bench.count(Counter.REFUSED_POLICY_UDP)
    made_up = frame(Datagram.UDP, endpoint(closed.getsockname()), endpoint(neighbour.getsockname()))
    with bench.world.inside(bench.world.other, "app"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as writer:
        writer.bind(("eth0", 0))
        writer.send(made_up)
    neighbour.sendto(b"no answer", closed.getsockname()[:2])
    closed.sendto(b"question", outside.getsockname()[:2])
    _, back = outside.recvfrom(100)
    outside.sendto(b"answer", back)
    assert closed.recv(100) == b"answer"
    assert bench.count(Counter.REFUSED_POLICY_UDP) == before + 1


def test_pieces_do_not_come_in_where_policy_asks_for_ports(bench: Bench) -> None:
    bench.attach(bench.world.pod, Flag(0))
    receiver, sender = udp(bench, bench.world.pod, 4), udp(bench, bench.world.outside, 4)
    sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: what is too long is cut in pieces
    large = b"x" * 4000
    sender.sendto(large, receiver.getsockname())
    assert receiver.recv(5000) == large
    refuse(bench, 4, Side.UDP_IN, 9)
    before = bench.count(Counter.REFUSED_FRAGMENT)
    sender.sendto(large, receiver.getsockname())
    sender.sendto(b"small", receiver.getsockname())
    assert receiver.recv(5000) == b"small"
    assert bench.count(Counter.REFUSED_FRAGMENT) > before


MEANT = {"link-local": 6, "group": 6, "broadcast": 4}


@pytest.mark.parametrize("meant", MEANT)
def test_policy_holds_under_whatever_address_the_pod_is_meant(bench: Bench, meant: str) -> None:
    """The node speaks for a neighbour on a bridge."""
    pod, node, version = bench.world.pod, bench.world.node, MEANT[meant]
    bench.attach(pod, Flag(0))
    link = pod_net.peer_ifindex(pod.netns)
    receiver, sender = (bench.socket(place, version, socket.SOCK_DGRAM) for place in (pod, node))
    receiver.bind(("", 0))
    receiver.settimeout(10)
    port = receiver.getsockname()[1]
    own, to = str(pod.ip(version)), {"group": "ff02::1", "broadcast": f"{str(pod.ip(4)).rpartition('.')[0]}.255"}
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    where = (to.get(meant) or str(link_local(pod)), port, *((0, link) if version == 6 else ()))
    sender.sendto(b"before", where)
    assert receiver.recv(100) == b"before"
    for ip in (pod.ip(version), IPv4Address(link) if version == 4 else IPv6Address(link)):
        rows = [DenyRow(ANY_PORT, EVERYBODY), DenyRow(port, EVERYBODY, Bits.REFUSES, 1)]
        assert bench.maps.deny.replace({(ip, Side.UDP_IN): rows}) == {}
    before = bench.count(Counter.REFUSED_POLICY_UDP)
    for address in (where, (own, port)):
        sender.sendto(b"refused", address)
    bench.maps.deny.delete(bench.maps.deny.tables())
    sender.sendto(b"after", (own, port))
    assert receiver.recv(100) == b"after"
    assert bench.count(Counter.REFUSED_POLICY_UDP) == before + 2


@pytest.mark.parametrize("sabotage", [False, True])
def test_the_kernels_verdict_is_policys(bench: Bench, sabotage: bool) -> None:
    """`sabotage`: the kernel has the rows of other policies, which must show."""
    random, pairs, refused, differences = Random(11), 0, 0, 0
    with program_of(bench.bpffs) as program:
        for number in range(60):
            one = scene(random)
            program.tell(scene(Random(number)) if sabotage else one)
            for port, (protocol, packet) in enumerate(packets(one, random, 25), start=20_000):
                came_by = INTERFACE if packet.peer is not None else INTERFACE + 1
                source, destination = Endpoint(packet.source_ip, port), Endpoint(one.address, packet.destination_port)
                found = program.refuses(protocol, source, destination, came_by=came_by)
                pairs, refused = pairs + 1, refused + found
                differences += found != one.denied(protocol, packet)
            for ip in list(bench.maps.pods.items()):
                bench.maps.pods.delete(ip)
            bench.maps.deny.delete(bench.maps.deny.tables())
    assert pairs > refused
    assert sabotage or refused > 100
    assert (differences > 0) is sabotage


def test_an_address_without_its_interface_proves_nobody(bench: Bench) -> None:
    """A scene where the identity opens: from the sender's own interface it passes, from another it does not."""
    with program_of(bench.bpffs) as program:
        for seed in range(2000):
            one = scene(Random(seed))
            for sender in one.proven:
                proven = one.connection(sender, 80, own_interface=True)
                claimed = one.connection(sender, 80, own_interface=False)
                if one.denied(Datagram.UDP, claimed) and not one.denied(Datagram.UDP, proven):
                    program.tell(one)
                    ends = Endpoint(sender, 40_000), Endpoint(one.address, 80)
                    assert not program.refuses(Datagram.UDP, *ends, came_by=INTERFACE)
                    assert program.refuses(Datagram.UDP, *ends, came_by=INTERFACE + 1)
                    program.forget(one)
                    return
    pytest.fail("no such scene")
