"""The same-node kernel path: what is granted goes from pod to pod as it is, everything in doubt takes the tunnel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from ambient.datapath import layout, programs
from ambient.datapath.direct import Call, Tuple
from ambient.datapath.layout import Counter, End, Option, Path, WayFlag
from ambient.datapath.sockets import list_tcp, open_diag
from ambient.datapath.tallies import Line
from ambient.model.address import Endpoint
from ambient.netns import entered
from tests.support.capture_bench import FULL, Bench, echoed, greeting
from tests.support.frames_tcp import syn
from tests.support.reserved import NO_LISTENER, YOUNG, asked_by, reservation, reservations, row
from tests.support.stand_in import App, StandIn, endpoint
from tests.support.waiting import until

DIRECT = FULL | layout.Flag.DIRECT
LEASE_S = 600.0
ROOM = 1_000


@pytest.fixture(autouse=True)
def nothing_left(bench: Bench) -> Iterator[None]:
    bench.maps.config.set(Option.DIRECT)
    yield
    direct = bench.maps.direct
    direct.revoke(direct.grants())
    direct.take_asks()
    direct.forget([*direct.ways()])
    direct.renew(0)
    direct.take_room(direct.made())
    bench.maps.config.set(Option(0))


class Pair:
    """A client's pod and a server's, both captured and both willing; `ztunnel` is what captures for the client."""

    def __init__(self, bench: Bench, version: int) -> None:
        self.bench = bench
        self.server: App = bench.app(bench.world.other, version)
        self.ztunnel: StandIn = bench.stand_in(bench.world.pod)
        self.other_ztunnel: StandIn = bench.stand_in(bench.world.other)
        bench.attach(bench.world.pod, DIRECT)
        bench.attach(bench.world.other, DIRECT)
        self.call = Call(bench.world.pod.ip(version), self.server.address)

    def grant(self, lease_s: float = LEASE_S, room: int = ROOM) -> None:
        self.bench.maps.direct.grant(self.call, self.server.address)
        self.bench.maps.direct.give_room({self.call.source: room})
        self.bench.maps.direct.renew(lease_s)

    def connect(self, source_port: int = 0) -> socket.socket:
        return self.bench.connect(self.bench.world.pod, self.server.address, source_port=source_port)

    def took_the_tunnel(self, client: socket.socket) -> bool:
        """Whether ztunnel has the connection, which works."""
        assert echoed(client, greeted(client))
        return not self.ztunnel.seen.empty()


def greeted(client: socket.socket) -> bytes:
    greeting(client)
    return b"hello"


def tuple_of(client: socket.socket) -> Tuple:
    return Tuple(endpoint(client.getsockname()), endpoint(client.getpeername()))


@pytest.fixture
def pair(bench: Bench, version: int) -> Pair:
    return Pair(bench, version)


def test_what_is_granted_goes_directly_and_is_counted_to_the_byte(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    seen = greeting(client)
    assert seen == endpoint(client.getsockname())
    data = os.urandom(3_000_000)
    thread = threading.Thread(target=client.sendall, args=(data,))
    thread.start()
    back = bytearray()
    while len(back) < len(data):
        back += client.recv(1 << 20)
    thread.join()
    assert back == data
    assert pair.ztunnel.seen.empty()
    assert pair.other_ztunnel.seen.empty()
    ways = pair.bench.maps.direct.ways()
    there, back_way = ways[tuple_of(client)], ways[tuple_of(client).reverse]
    assert there.flags == WayFlag.CLIENT
    assert there.octets == len(data)
    assert back_way.octets == len(data) + len(f"{seen.ip} {seen.port}\n")


def test_both_ends_of_a_way_are_known_by_the_cookies_of_their_sockets(pair: Pair) -> None:
    """So that what is ended is this connection, and no other of its four-tuple."""
    pair.grant()
    client = pair.connect()
    assert echoed(client, greeted(client))
    one = tuple_of(client)
    found = {}
    for place in (pair.bench.world.pod, pair.bench.world.other):
        with entered(place.netns), open_diag() as diag:
            found |= {Tuple(end.local, end.remote): end.cookie for end in list_tcp(diag)}
    ways = pair.bench.maps.direct.ways()
    assert (ways[one].cookie, ways[one.reverse].cookie) == (found[one], found[one.reverse])
    assert found[one] != found[one.reverse]
    assert 0 not in found.values()


def test_without_a_grant_it_takes_the_tunnel_and_leaves_a_note(pair: Pair) -> None:
    pair.bench.maps.direct.renew(LEASE_S)
    assert pair.took_the_tunnel(pair.connect())
    assert pair.bench.maps.direct.take_asks() == [pair.call]
    assert pair.bench.maps.direct.take_asks() == []
    assert not pair.bench.maps.direct.ways()


def test_a_grant_counts_only_while_somebody_renews_it(pair: Pair) -> None:
    pair.grant(lease_s=0)
    assert pair.took_the_tunnel(pair.connect())


def test_a_grant_is_for_one_source_one_address_and_one_port(pair: Pair) -> None:
    other = pair.bench.app(pair.bench.world.other, pair.server.address.ip.version)
    pair.bench.maps.direct.renew(LEASE_S)
    pair.bench.maps.direct.give_room({pair.call.source: ROOM})
    pair.bench.maps.direct.grant(Call(pair.call.source, other.address), other.address)
    pair.bench.maps.direct.grant(
        Call(pair.bench.world.outside.ip(other.address.ip.version), pair.server.address), pair.server.address
    )
    assert pair.took_the_tunnel(pair.connect())


def test_a_pod_that_has_its_share_takes_the_tunnel(pair: Pair) -> None:
    pair.grant(room=2)
    before = pair.bench.count(Counter.BEYOND_SHARE_DIRECT)
    for _ in range(2):
        client = pair.connect()
        assert echoed(client, greeted(client))
    assert pair.ztunnel.seen.empty()
    assert pair.bench.maps.direct.made() == {pair.call.source: 2}
    assert pair.took_the_tunnel(pair.connect())
    assert pair.bench.count(Counter.BEYOND_SHARE_DIRECT) == before + 1
    pair.bench.maps.direct.give_room({pair.call.source: 3})
    client = pair.connect()
    assert echoed(client, greeted(client))
    assert len(pair.bench.maps.direct.ways()) == 2 * 3


def test_who_was_never_given_room_has_none(pair: Pair) -> None:
    pair.grant()
    pair.bench.maps.direct.take_room([pair.call.source])
    assert pair.took_the_tunnel(pair.connect())


def test_the_agent_alone_tells_of_a_connection_on_this_path(pair: Pair) -> None:
    programs.attach_node(pair.bench.bpffs, pair.bench.world.cgroup["node"])
    pair.bench.stack.callback(programs.detach_node, pair.bench.bpffs)
    pair.bench.maps.tallies.take()
    pair.bench.maps.events.read()
    pair.grant()
    client = pair.connect()
    one = tuple_of(client)
    assert echoed(client, greeted(client))
    client.close()
    ended: list[Line] = []

    def both() -> bool:
        lines = [line for line in pair.bench.maps.tallies.take() if line.destination == one.destination.ip]
        ended.extend(line for line in lines if line.end is not End.NONE)
        return len(ended) == 2

    until(both, "both ends are on the sheet")
    assert {(line.path, line.arriving) for line in ended} == {(Path.DIRECT, True), (Path.DIRECT, False)}
    assert all(flow.source != one.source for flow in pair.bench.maps.events.read().flows)


@pytest.mark.parametrize("unwilling", ["pod", "other"])
def test_a_pod_that_does_not_ask_for_it_takes_the_tunnel(pair: Pair, unwilling: str) -> None:
    pair.grant()
    pair.bench.enrol(pair.bench.world.places[unwilling], FULL)
    assert pair.took_the_tunnel(pair.connect())


def test_what_is_cut_carries_nothing_more(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    assert echoed(client, greeted(client))
    one = tuple_of(client)
    pair.bench.maps.direct.revoke([pair.call])
    pair.bench.maps.direct.cut([one, one.reverse])
    before = pair.bench.count(Counter.REFUSED_DIRECT_CUT)
    client.settimeout(0.5)
    client.sendall(b"more")
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert pair.bench.count(Counter.REFUSED_DIRECT_CUT) > before
    assert pair.took_the_tunnel(pair.connect())


def test_a_connection_whose_way_is_lost_sends_nothing_in_the_clear(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    assert echoed(client, greeted(client))
    pair.bench.maps.direct.forget([tuple_of(client), tuple_of(client).reverse])
    before = pair.bench.count(Counter.REFUSED_DIRECT_CUT), pair.bench.count(Counter.CLEAR_OUT)
    client.settimeout(0.5)
    client.sendall(b"more")
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert pair.bench.count(Counter.REFUSED_DIRECT_CUT) > before[0]
    assert pair.bench.count(Counter.CLEAR_OUT) == before[1]


def test_a_mark_from_outside_opens_no_door(pair: Pair) -> None:
    for mark in (0x53B, 0x53C):
        client = pair.bench.connect(pair.bench.world.outside, pair.server.address, mark=mark)
        assert echoed(client, greeted(client))
        assert pair.other_ztunnel.seen.get(timeout=5)


def test_nobody_else_speaks_into_a_direct_connection(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    assert echoed(client, greeted(client))
    one = tuple_of(client)
    frame = bytearray(syn(one.source, one.destination, data=b"not from the client"))
    frame[(54 if one.source.ip.version == 6 else 34) + 13] = 0x18  # PSH, ACK
    world, before = pair.bench.world, pair.bench.count(Counter.REFUSED_SPOOFED_SOURCE)
    with world.inside(world.node, "app"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((world.other.host_interface, 0))
        raw.send(frame)
    until(lambda: pair.bench.count(Counter.REFUSED_SPOOFED_SOURCE) == before + 1, "for it to be dropped")
    assert echoed(client, b"still ours")


def test_an_opening_packet_that_another_pod_makes_up_shuts_no_living_way(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    assert echoed(client, greeted(client))
    one = tuple_of(client)
    world = pair.bench.world
    with world.inside(world.other, "app"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(syn(one.source, one.destination))
    assert not pair.bench.maps.direct.ways()[one].flags & WayFlag.OVER


def test_half_a_connection_goes_on_after_the_other_half_has_ended(pair: Pair) -> None:
    pair.grant()
    client = pair.connect()
    greeting(client)
    one = tuple_of(client)
    data = os.urandom(1_000_000)

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    back = bytearray()
    while more := client.recv(1 << 20):
        back += more
    thread.join()
    assert pair.bench.maps.direct.ways()[one].octets == len(data)
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    assert pair.ztunnel.seen.empty()


def raw_pair(pair: Pair) -> tuple[socket.socket, socket.socket]:
    """A direct connection whose server's end is in the hands of the test."""
    version = pair.call.source.version
    listener = pair.bench.socket(pair.bench.world.other, version)
    listener.bind((str(pair.bench.world.other.ip(version)), 0))
    listener.listen()
    address: Endpoint = endpoint(listener.getsockname())
    pair.bench.maps.direct.grant(Call(pair.call.source, address), address)
    pair.bench.maps.direct.give_room({pair.call.source: ROOM})
    pair.bench.maps.direct.renew(LEASE_S)
    client = pair.bench.connect(pair.bench.world.pod, address)
    listener.settimeout(5)
    server, _ = listener.accept()
    server.settimeout(5)
    pair.bench.stack.callback(server.close)
    assert tuple_of(client) in pair.bench.maps.direct.ways()
    return client, server


def test_urgent_data_stays_urgent(pair: Pair) -> None:
    client, server = raw_pair(pair)
    client.send(b"before!", socket.MSG_OOB)
    assert server.recv(100) == b"before"
    assert select.select([], [], [server], 5)[2]
    server.settimeout(None)  # else it would wait for data that is not urgent
    assert server.recv(1, socket.MSG_OOB) == b"!"
    client.send(b"after")
    assert server.recv(100) == b"after"


def test_a_reader_who_stands_still_holds_the_writer_and_loses_nothing(pair: Pair) -> None:
    client, server = raw_pair(pair)
    client.setblocking(False)
    block, sent, wanted = os.urandom(65536), 0, hashlib.sha256()
    with contextlib.suppress(BlockingIOError):
        while sent < 64 << 20:
            taken = client.send(block)
            wanted.update(block[:taken])
            sent += taken
    assert sent < 64 << 20
    client.setblocking(True)
    client.shutdown(socket.SHUT_WR)
    got = hashlib.sha256()
    while more := server.recv(1 << 20):
        got.update(more)
    assert got.digest() == wanted.digest()


def test_it_is_not_held_up_by_an_older_note_of_its_four_tuple(pair: Pair) -> None:
    pair.grant()
    source = Endpoint(pair.call.source, 25_646)
    note = row()
    note.places[0] = reservation(asked_by(source, pair.server.address), YOUNG, 0, NO_LISTENER)
    with reservations(pair.bench.bpffs) as rows:
        rows.put_everywhere(note)
        assert greeting(pair.connect(source_port=source.port)) == source
    assert pair.ztunnel.seen.empty()


def test_a_four_tuple_that_ztunnel_uses_for_the_same_client_takes_the_tunnel(pair: Pair) -> None:
    taken = pair.other_ztunnel.upstream(pair.server.address, Endpoint(pair.call.source, 0))
    pair.bench.stack.callback(taken.close)
    source = greeting(taken)
    assert source.ip == pair.call.source
    pair.grant()
    before = pair.bench.count(Counter.REFUSED_DIRECT_TAKEN)
    client = pair.connect(source_port=source.port)
    assert pair.took_the_tunnel(client)
    assert pair.bench.count(Counter.REFUSED_DIRECT_TAKEN) == before + 1
    assert echoed(taken, b"still here")
