"""What the kernel tells of TCP flows: beginning, end and why, bytes, round trip; singly and on the sheets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from ambient.datapath import programs
from ambient.datapath.events import ToldFlow
from ambient.datapath.layout import Counter, End, Flag, Option, Path, Side
from ambient.datapath.tallies import Line, Tallies
from ambient.model.address import HBONE_PORT, PROXY_MARK, Endpoint
from ambient.model.deny import ANY_PORT, block_of
from tests.bpf.test_policy import refuse
from tests.support.capture_bench import Bench, echoed, greeting
from tests.support.capture_world import GIVE_UP
from tests.support.stand_in import endpoint
from tests.support.waiting import until

RELEASED = Flag(0)
"""On the pod, but nothing is captured."""


@pytest.fixture(autouse=True)
def watched(bench: Bench) -> Iterator[None]:
    programs.attach_node(bench.bpffs, bench.world.cgroup["node"])
    bench.stack.callback(programs.detach_node, bench.bpffs)
    bench.maps.tallies.take()
    bench.maps.events.read()
    yield
    bench.maps.deny.delete(bench.maps.deny.tables())
    bench.maps.config.set(Option(0))


def told(bench: Bench, wanted: Callable[[ToldFlow], bool]) -> ToldFlow:
    """The first such flow, once it was told."""
    heard: list[ToldFlow] = []

    def there() -> bool:
        heard.extend(one for one in bench.maps.events.read().flows if wanted(one))
        return bool(heard)

    until(there, "a flow is told")
    return heard[0]


def written(bench: Bench, server: Endpoint) -> list[Line]:
    """Lines about flows to the server; connections of earlier tests may still be ending."""
    return [line for line in bench.maps.tallies.take() if Endpoint(line.destination, line.port) == server]


def tallied(bench: Bench, server: Endpoint, enough: Callable[[list[Line]], bool]) -> list[Line]:
    """Such lines until there are enough."""
    lines: list[Line] = []

    def there() -> bool:
        lines.extend(written(bench, server))
        return enough(lines)

    until(there, "the tallies have it")
    return lines


def ended(lines: list[Line]) -> bool:
    return any(line.end is not End.NONE for line in lines)


def test_a_flow_past_ztunnel_is_told_as_it_opens_and_closes(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod, RELEASED)
    client = bench.connect(bench.world.pod, server.address)
    mine = endpoint(client.getsockname())
    opened = told(bench, lambda one: one.source == mine)
    assert (opened.destination, opened.end, opened.path) == (server.address, End.NONE, Path.DIRECT)
    assert (opened.protocol, opened.arriving) == (socket.IPPROTO_TCP, False)
    greeted = len(f"{mine.ip} {mine.port}\n")
    greeting(client)
    assert echoed(client, b"x" * 100_000)
    client.close()
    closed = told(bench, lambda one: one.source == mine)
    assert closed.end is End.ORDERLY
    assert (closed.bytes_sent, closed.bytes_received) == (100_000, 100_000 + greeted)
    assert closed.rtt_us > 0
    assert closed.packets_sent > 2
    assert closed.packets_received > 2
    assert opened.opened_s == closed.opened_s <= opened.time_s <= closed.time_s


def test_the_same_flow_seen_by_the_pod_that_is_called(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod, RELEASED)
    client = bench.connect(bench.world.outside, server.address)
    mine = endpoint(client.getsockname())
    greeting(client)
    assert echoed(client, b"x" * 5_000)
    client.close()
    closed = told(bench, lambda one: one.source == mine and one.end is not End.NONE)
    assert (closed.destination, closed.end, closed.arriving) == (server.address, End.ORDERLY, True)
    assert (closed.bytes_sent, closed.bytes_received) == (5_000, 5_000 + len(f"{mine.ip} {mine.port}\n"))


def test_sheets_add_up_flows_between_the_same(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod, RELEASED)
    for _ in range(20):
        with bench.connect(bench.world.pod, server.address) as client:
            greeting(client)
            assert echoed(client, b"x" * 1_000)
    lines = tallied(
        bench, server.address, lambda lines: sum(line.flows for line in lines if line.end is End.ORDERLY) == 20
    )
    assert {line.source for line in lines} == {bench.world.pod.ip(version)}
    assert sum(line.flows for line in lines if line.end is End.NONE) == 20
    assert sum(line.bytes_sent for line in lines) == 20_000
    assert sum(line.rtts for line in lines) >= 20
    assert written(bench, server.address) == []


def test_what_ztunnel_carries_is_tallied_and_not_told_again(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    with bench.connect(bench.world.pod, server.address) as client:
        mine = endpoint(client.getsockname())
        greeting(client)
    lines = tallied(
        bench,
        server.address,
        lambda lines: any(line.path is Path.CAPTURED and line.end is not End.NONE for line in lines),
    )
    assert {line.path for line in lines} <= {Path.CAPTURED, Path.PASSTHROUGH}
    told_well = [one for one in bench.maps.events.read().flows if one.end in (End.NONE, End.ORDERLY)]
    assert all(one.source != mine for one in told_well)


def test_ztunnels_tunnels_are_told_with_the_networks_round_trip(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version, HBONE_PORT)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.pod, server.address, owner="ztunnel", mark=PROXY_MARK)
    mine = endpoint(client.getsockname())
    greeting(client)
    client.close()
    closed = told(bench, lambda one: one.source == mine and one.end is not End.NONE)
    assert (closed.path, closed.end) == (Path.TUNNEL, End.ORDERLY)
    assert closed.rtt_us > 0


def test_a_closed_port_is_told_as_refused(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    nobody = Endpoint(bench.world.outside.ip(version), 9)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.pod, nobody)
    assert told(bench, lambda one: one.destination == nobody).end is End.REFUSED


def test_silence_is_told_as_unanswered(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod)
    nobody = Endpoint(bench.world.outside.ip(version), 9)
    with bench.socket(bench.world.pod, version) as client:
        client.settimeout(GIVE_UP)
        with pytest.raises(TimeoutError):
            client.connect((str(nobody.ip), nobody.port))
    assert told(bench, lambda one: one.destination == nobody).end is End.UNANSWERED


def test_a_reset_by_the_other_end_and_one_of_this_end_are_told_apart(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod, RELEASED)
    client = bench.connect(bench.world.pod, server.address)
    mine = endpoint(client.getsockname())
    greeting(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert told(bench, lambda one: one.source == mine and one.end is not End.NONE).end is End.ABORTED
    inner = bench.app(bench.world.pod, version)
    client = bench.connect(bench.world.outside, inner.address)
    mine = endpoint(client.getsockname())
    greeting(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert told(bench, lambda one: one.source == mine and one.end is not End.NONE).end is End.RESET


def test_what_policy_refuses_is_tallied_as_denied_and_told_once(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    refuse(bench, bench.world.pod.ip(version), Side.OUT, ANY_PORT, peer=block_of(server.address.ip))
    with pytest.raises(ConnectionRefusedError):
        bench.connect(bench.world.pod, server.address)
    assert [line.end for line in tallied(bench, server.address, ended)] == [End.DENIED]
    heard = bench.maps.events.read()
    assert [one.reason for one in heard.packets] == [Counter.REFUSED_POLICY_OUT]
    assert all(one.destination != server.address for one in heard.flows)


def test_what_is_beyond_a_pods_share_is_added_up_and_nobody_elses_is(bench: Bench, version: int) -> None:
    for place in (bench.world.pod, bench.world.other):
        bench.attach(place, RELEASED)
    small = Tallies(bench.maps.tallies._slot, bench.maps.tallies._shape, most=8)
    small.take()
    before = bench.count(Counter.BEYOND_SHARE_FLOWS), bench.count(Counter.FLOW_UNCOUNTED)
    servers = [bench.app(bench.world.outside, version) for _ in range(10)]
    clients = [bench.connect(bench.world.pod, server.address) for server in servers]
    clients.append(bench.connect(bench.world.other, servers[0].address))
    for client in clients:
        greeting(client)
    lines = [line for line in small.take() if line.end is End.NONE and not line.arriving]
    mine = [line for line in lines if line.source == bench.world.pod.ip(version)]
    folded = [line for line in mine if line.destination.is_unspecified]
    assert [(line.port, line.path, line.flows) for line in folded] == [(0, Path.DIRECT, 10 - len(mine) + 1)]
    assert len(mine) - 1 <= 8 // 2
    theirs = [line for line in lines if line.source == bench.world.other.ip(version)]
    assert [(line.destination, line.port) for line in theirs] == [(servers[0].address.ip, servers[0].address.port)]
    assert bench.count(Counter.BEYOND_SHARE_FLOWS) - before[0] >= 10 - len(mine) + 1
    assert bench.count(Counter.FLOW_UNCOUNTED) == before[1]


def test_a_full_sheet_is_counted(bench: Bench, version: int) -> None:
    bench.attach(bench.world.pod, RELEASED)
    small = Tallies(bench.maps.tallies._slot, bench.maps.tallies._shape, most=1, spare=1)
    small.take()
    before = bench.count(Counter.FLOW_UNCOUNTED)
    servers = [bench.app(bench.world.outside, version) for _ in range(3)]
    for server in servers:
        greeting(bench.connect(bench.world.pod, server.address))
    assert bench.count(Counter.FLOW_UNCOUNTED) - before >= 2
    assert len(small.take()) == 1


def test_nothing_is_tallied_where_the_node_is_set_so(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod, RELEASED)
    bench.maps.config.set(Option.NO_FLOWS)
    with bench.connect(bench.world.pod, server.address) as client:
        greeting(client)
    assert written(bench, server.address) == []
    assert all(one.destination != server.address for one in bench.maps.events.read().flows)


def test_a_node_program_that_was_taken_off_is_put_back(bench: Bench) -> None:
    root = bench.world.cgroup["node"]
    assert not programs.attach_node(bench.bpffs, root)
    programs.detach_node(bench.bpffs)
    assert programs.attach_node(bench.bpffs, root)
