"""Under SYN cookies, where a half-open connection has no socket, ztunnel's listener still gets what it answered for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.datapath.layout import Counter
from ambient.netns import entered
from tests.support.capture_bench import EVERY_WAY, Bench, echoed, greeting

pytestmark = EVERY_WAY

SYSCTL = Path("/proc/sys/net/ipv4/tcp_syncookies")
ALWAYS = "2"


@pytest.fixture
def cookies_always(bench: Bench) -> Iterator[None]:
    with entered(bench.world.pod.netns):
        before = SYSCTL.read_text()
        SYSCTL.write_text(ALWAYS)
    yield
    with entered(bench.world.pod.netns):
        SYSCTL.write_text(before)


@pytest.mark.usefixtures("cookies_always")
def test_into_the_pod(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.pod, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    before = bench.count(Counter.COOKIE_IN)
    client = bench.connect(bench.world.outside, server.address)
    assert greeting(client).ip == bench.world.outside.ip(version)
    assert proxy.seen.get(timeout=30).destination == server.address
    assert echoed(client, b"c" * 100_000)
    assert bench.count(Counter.COOKIE_IN) > before


@pytest.mark.usefixtures("cookies_always")
def test_out_of_the_pod(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.pod, server.address)
    assert greeting(client).ip == bench.world.pod.ip(version)
    assert proxy.seen.get(timeout=30).destination == server.address
