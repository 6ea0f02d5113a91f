"""The alarm: data that passes a captured pod in the clear without leave is counted and told, and dropped if so set."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ambient.datapath.layout import Counter, FailMode, Flag, Option, Role
from ambient.model.address import PROXY_MARK
from tests.support.capture_bench import EVERY_WAY, FULL, Bench, echoed, greeting
from tests.support.stand_in import App, endpoint

pytestmark = EVERY_WAY


@pytest.fixture(autouse=True)
def as_before(bench: Bench) -> Iterator[None]:
    bench.maps.events.read()
    yield
    bench.maps.config.set(Option(0))


def alarms(bench: Bench) -> tuple[int, int]:
    return bench.count(Counter.CLEAR_OUT), bench.count(Counter.CLEAR_IN)


def older(bench: Bench, version: int, *, outbound: bool) -> tuple[App, socket.socket]:
    """A connection of the pod from before the programs are on it, and nobody told them."""
    there, here = (bench.world.outside, bench.world.pod) if outbound else (bench.world.pod, bench.world.outside)
    server = bench.app(there, version)
    client = bench.connect(here, server.address)
    greeting(client)
    bench.attach(bench.world.pod)
    return server, client


def test_nothing_that_ztunnel_carries_raises_it(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = alarms(bench)
    for client in (bench.connect(bench.world.pod, outer.address), bench.connect(bench.world.outside, inner.address)):
        greeting(client)
        assert echoed(client, b"x" * 300_000)
    assert alarms(bench) == before


@pytest.mark.parametrize(("role", "alarming"), [(Role.FORMER_ZTUNNEL, False), (Role(0), True)])
def test_nor_does_what_comes_out_of_the_listener_of_a_ztunnel_that_is_gone(
    bench: Bench, version: int, role: Role, alarming: bool
) -> None:
    inner = bench.app(bench.world.pod, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    owner = bench.world.cgroup_id("ztunnel")
    bench.stack.callback(bench.maps.owners.put, owner, Role.ZTUNNEL)
    bench.maps.owners.put(owner, role)
    before = alarms(bench)
    client = bench.connect(bench.world.outside, inner.address)
    greeting(client)
    assert echoed(client, b"x" * 300_000)
    assert (alarms(bench) != before) is alarming


def test_probes_do_not_raise_it(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    before = alarms(bench)
    client = bench.connect(bench.world.node, server.address, owner="kubelet")
    greeting(client)
    assert echoed(client, b"probe" * 1000)
    assert alarms(bench) == before


@pytest.mark.parametrize("outbound", [True, False])
def test_what_is_older_than_the_enrolment_raises_it_unless_the_agent_admits_it(
    bench: Bench, version: int, outbound: bool
) -> None:
    _, client = older(bench, version, outbound=outbound)
    before = alarms(bench)
    assert echoed(client, b"nobody knows of this")
    after = alarms(bench)
    assert after[0] > before[0]
    assert after[1] > before[1]
    ends = endpoint(client.getsockname()), endpoint(client.getpeername())
    told = bench.maps.events.read().packets
    assert {one.reason for one in told} == {Counter.CLEAR_OUT, Counter.CLEAR_IN}
    assert {frozenset((one.source, one.destination)) for one in told} == {frozenset(ends)}
    bench.maps.clear.admit(*ends if outbound else reversed(ends))
    before = alarms(bench)
    assert echoed(client, b"now it is known" * 100)
    assert alarms(bench) == before


@pytest.mark.parametrize("flags", [Flag(0), Flag.HBONE_IN])
def test_what_began_while_the_pod_was_not_captured_may_go_on(bench: Bench, version: int, flags: Flag) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod, flags)
    clients = bench.connect(bench.world.pod, outer.address), bench.connect(bench.world.outside, inner.address)
    for client in clients:
        greeting(client)
    bench.enrol(bench.world.pod)
    before = alarms(bench)
    assert all(echoed(client, b"from before" * 100) for client in clients)
    assert alarms(bench) == before


def test_what_a_row_let_pass_may_go_on_when_the_row_is_closed(bench: Bench, version: int) -> None:
    outer, inner = bench.app(bench.world.outside, version), bench.app(bench.world.pod, version)
    bench.attach(bench.world.pod)
    bench.enrol(bench.world.pod, FULL, fail_in=FailMode.OPEN, fail_out=FailMode.OPEN)
    clients = bench.connect(bench.world.pod, outer.address), bench.connect(bench.world.outside, inner.address)
    for client in clients:
        greeting(client)
    bench.enrol(bench.world.pod)
    before = alarms(bench)
    assert all(echoed(client, b"let pass" * 100) for client in clients)
    assert alarms(bench) == before


@pytest.mark.parametrize("outbound", [True, False])
def test_where_the_node_is_set_so_it_is_dropped(bench: Bench, version: int, outbound: bool) -> None:
    _, client = older(bench, version, outbound=outbound)
    bench.maps.config.set(Option.DROP_CLEAR)
    before = alarms(bench)
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        echoed(client, b"this arrives nowhere")
    assert sum(alarms(bench)) > sum(before)


def test_a_mark_does_not_hide_data_that_leaves(bench: Bench, version: int) -> None:
    _, client = older(bench, version, outbound=True)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    before = alarms(bench)
    assert echoed(client, b"marked")
    assert alarms(bench)[0] > before[0]


def test_a_flood_of_events_is_thinned_and_counted_and_the_totals_stay_whole(bench: Bench, version: int) -> None:
    _, client = older(bench, version, outbound=True)
    before = bench.count(Counter.EVENT_THINNED) + bench.count(Counter.EVENT_LOST), sum(alarms(bench))
    for _ in range(1500):
        assert echoed(client, b"again")
    untold = bench.count(Counter.EVENT_THINNED) + bench.count(Counter.EVENT_LOST) - before[0]
    told = len(bench.maps.events.read().packets)
    assert untold > 0
    assert told + untold == sum(alarms(bench)) - before[1]
