"""Whether a waypoint has a proxy that serves, as all replicas together see it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address

from ambient.control.proxies import BEGIN_S, GONE_S, NOBODY, Proxies, Sight
from ambient.http import HttpServer, Page
from ambient.model.address import Endpoint
from tests.support.waiting import eventually

NAME = "shop/waypoint"
ONE = Sight(1, 1)


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.own: Mapping[str, Sight] = {NAME: NOBODY}
        self.said: list[str] = []
        self.one = Proxies(lambda: self.own, self.said.append, clock=lambda: self.now)

    def look(self, *answers: Mapping[str, Sight] | None, after_s: float = 0.0) -> bool | None:
        self.now += after_s
        self.one.hear(answers)
        return self.one.serves(NAME)


def test_a_proxy_serves_wherever_it_is_connected() -> None:
    bench = Bench()
    bench.own = {NAME: Sight(1, 0)}
    assert bench.look() is None
    assert bench.look({NAME: ONE})
    assert bench.one.sight(NAME) == Sight(2, 1)
    bench.own = {NAME: ONE}
    assert bench.look(None)


def test_at_the_beginning_nobody_is_missed_and_later_at_once() -> None:
    bench = Bench()
    assert bench.look() is None
    assert bench.look(after_s=BEGIN_S) is False


def test_a_proxy_on_its_way_to_another_replica_still_counts_and_one_that_has_gone_does_not() -> None:
    bench = Bench()
    bench.own = {NAME: ONE}
    assert bench.look()
    bench.own = {NAME: NOBODY}
    assert bench.look(after_s=GONE_S - 1)
    assert bench.look(after_s=2) is False
    assert bench.said[-1] == NAME


def test_what_is_seen_otherwise_is_said_once() -> None:
    bench = Bench()
    bench.look()
    bench.said.clear()
    bench.look()
    assert bench.said == []
    bench.look({NAME: Sight(1, 1, {"a-route": "no"})})
    bench.look({NAME: Sight(1, 1, {"a-route": "no"})})
    assert bench.said == [NAME]
    assert bench.one.sight(NAME).refused == {"a-route": "no"}


def test_replicas_ask_each_other_and_one_that_talks_nonsense_counts_for_nothing() -> None:
    async def scenario() -> None:
        other = Bench()
        other.own = {NAME: ONE}
        server = HttpServer({"/debug/waypoints": lambda: Page(str(other.one.page()).replace("'", '"').encode())})
        junk = HttpServer({"/debug/waypoints": lambda: Page(b"[]")})
        listen = Endpoint(ip_address("127.0.0.1"), 0)
        ports = [await server.start(listen), await junk.start(listen)]
        bench = Bench()
        bench.one.peers = lambda: tuple(Endpoint(ip_address("127.0.0.1"), port) for port in ports)
        running = asyncio.create_task(bench.one.run())
        await eventually(lambda: bench.one.serves(NAME))
        assert bench.one.sight(NAME) == ONE
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()
        await junk.stop()

    asyncio.run(scenario())
