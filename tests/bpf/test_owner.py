"""A mark does not let a pod out: ztunnel is known by the cgroup of its sockets as well."""

from __future__ import annotations

import pytest

from ambient.datapath.layout import Counter, Option, Role
from ambient.model.address import LOOP_MARK, OUTBOUND_PORT, PROXY_MARK
from tests.support.capture_bench import EVERY_WAY, Bench
from tests.support.stand_in import Seen, endpoint

pytestmark = EVERY_WAY


@pytest.mark.parametrize("mark", [PROXY_MARK, LOOP_MARK, 0x1], ids=hex)
def test_a_mark_set_by_the_pod_does_not_let_it_out(bench: Bench, version: int, mark: int) -> None:
    server = bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.FORGED_MARK)
    client = bench.connect(bench.world.pod, server.address, mark=mark, source_port=45_111)
    assert proxy.seen.get(timeout=30) == Seen(OUTBOUND_PORT, endpoint(client.getsockname()), server.address)
    assert bench.count(Counter.FORGED_MARK) - before == (mark == PROXY_MARK)


def test_with_no_listener_a_forged_mark_is_refused(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    assert bench.refused(bench.world.pod, server.address, mark=PROXY_MARK)


def test_the_mark_of_a_ztunnel_that_is_gone_opens_nothing(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    bench.maps.owners.put(bench.world.cgroup_id("app"), Role.FORMER_ZTUNNEL)
    bench.stack.callback(bench.maps.owners.delete, bench.world.cgroup_id("app"))
    assert bench.refused(bench.world.pod, server.address, mark=PROXY_MARK)


def test_sabotage_a_pod_that_owns_ztunnels_role_escapes(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    bench.maps.owners.put(bench.world.cgroup_id("app"), Role.ZTUNNEL)
    bench.connect(bench.world.pod, server.address, mark=PROXY_MARK)


def test_without_the_mark_even_ztunnels_cgroup_is_captured(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    assert bench.refused(bench.world.pod, server.address, owner="ztunnel")


def test_where_there_is_no_cgroup_v2_the_mark_alone_decides_and_the_option_says_so(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.attach(bench.world.pod)
    assert bench.maps.config.options() == Option(0)
    bench.maps.config.set(Option.MARK_ALONE)
    bench.stack.callback(bench.maps.config.set, Option(0))
    bench.connect(bench.world.pod, server.address, mark=PROXY_MARK)
