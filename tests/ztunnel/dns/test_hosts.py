"""Endpoints that are known by name only: found with the node's resolvers, remembered, and never ourselves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import cast

import pytest
from dnslib import AAAA, QTYPE, RR, A, DNSRecord

from ambient.model.address import IpAddress
from ambient.model.outcome import Forward, Hop
from tests.support.tunnel import TestPod, World, application, echo, run, talk, until, world
from ztunnel.dns.hosts import Hosts
from ztunnel.ipc import messages as m


class Zone(asyncio.DatagramProtocol):
    """A resolver that knows `names`: (address, ttl) each. `mute`: it hears and says nothing."""

    def __init__(self) -> None:
        self.names: dict[str, list[tuple[str, int]]] = {}
        self.questions: list[tuple[str, str]] = []
        self.mute = False
        self.short = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.answer(data, truncated=self.short)
        if not self.mute:
            self.transport.sendto(answer, addr)

    def answer(self, data: bytes, *, truncated: bool = False) -> bytes:
        question = DNSRecord.parse(data)
        name, kind = str(question.q.qname).rstrip("."), QTYPE[question.q.qtype]
        self.questions.append((name, kind))
        reply = question.reply()
        reply.header.tc = int(truncated)
        for address, ttl in self.names.get(name, ()) if not truncated else ():
            if (":" in address) == (kind == "AAAA"):
                data_of = AAAA(address) if kind == "AAAA" else A(address)
                reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=data_of, ttl=ttl))
        packed: bytes = reply.pack()
        return packed

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(size))
        writer.write(struct.pack(">H", len(answer)) + answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def zone() -> AsyncIterator[tuple[World, Zone, TestPod]]:
    loop = asyncio.get_running_loop()
    async with world() as here:
        transport, resolver = await loop.create_datagram_endpoint(Zone, local_addr=("127.0.0.53", 0))
        port = transport.get_extra_info("sockname")[1]
        server = await asyncio.start_server(resolver.stream, "127.0.0.53", port)
        settings = m.Settings(
            node="n1", trust_domain="x", cluster_id="c", upstream_resolvers=(f"127.0.0.53:{port}",), log_level="debug"
        )
        here.director.send(settings)
        await until(lambda: bool(here.workers[0].plane.settings.upstream_resolvers))
        client = await here.pod("client", "127.0.0.11")
        try:
            yield here, resolver, client
        finally:
            server.close()
            transport.close()


async def find(here: World, name: str, uid: str = "uid-client") -> list[str]:
    found: asyncio.Future[tuple[IpAddress, ...]] = asyncio.get_running_loop().create_future()
    pod = here.workers[0]._pods[uid].pod
    here.workers[0].plane.hosts.find(pod, name, found.set_result)
    return sorted(str(ip) for ip in await found)


def test_both_families_are_asked_and_the_answer_is_kept() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            resolver.names["db.example"] = [("192.0.2.1", 60), ("2001:db8::1", 60)]
            for _ in range(3):
                assert await find(here, "db.example") == ["192.0.2.1", "2001:db8::1"]
            assert sorted(resolver.questions) == [("db.example", "A"), ("db.example", "AAAA")]
            counted = here.workers[0].recorder.counters._other
            lookups = {name: count for name, count in counted.items() if name.startswith("istio_on_demand_dns{")}
            assert list(lookups.values()) == [1]
            assert 'hostname="db.example"' in next(iter(lookups))

    run(scenario)


def test_without_ipv6_nobody_asks_for_it() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            settings = here.workers[0].plane.settings
            here.director.send(
                m.Settings(
                    node="n1",
                    trust_domain="x",
                    cluster_id="c",
                    ipv6=False,
                    upstream_resolvers=settings.upstream_resolvers,
                )
            )
            await until(lambda: not here.workers[0].plane.settings.ipv6)
            resolver.names["db.example"] = [("192.0.2.1", 60), ("2001:db8::1", 60)]
            assert await find(here, "db.example") == ["192.0.2.1"]
            assert resolver.questions == [("db.example", "A")]

    run(scenario)


def test_an_answer_is_kept_as_long_as_it_says_within_limits() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            now = [1000.0]
            here.workers[0].plane.clock = lambda: now[0]
            resolver.names = {
                "short.example": [("192.0.2.1", 0)],
                "long.example": [("192.0.2.2", 86_400)],
                "usual.example": [("192.0.2.3", 60), ("192.0.2.4", 30)],
            }
            lives = {"short.example": 1.0, "usual.example": 30.0, "long.example": 300.0}
            for name, life in lives.items():
                await find(here, name)
                resolver.questions.clear()
                now[0] += life - 0.5
                await find(here, name)
                assert not resolver.questions
                now[0] += 1
                await find(here, name)
                assert resolver.questions

    run(scenario)


def test_an_old_answer_is_better_than_none() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            now = [1000.0]
            here.workers[0].plane.clock = lambda: now[0]
            resolver.names["db.example"] = [("192.0.2.1", 60)]
            await find(here, "db.example")
            resolver.names.clear()
            now[0] += 61
            assert await find(here, "db.example") == ["192.0.2.1"]
            assert here.counter("host_lookup_failures") == 1
            resolver.names["db.example"] = [("192.0.2.9", 60)]
            now[0] += 2
            assert await find(here, "db.example") == ["192.0.2.9"]

    run(scenario)


def test_many_at_once_ask_once() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            resolver.names["db.example"] = [("192.0.2.1", 60)]
            answers = await asyncio.gather(*(find(here, "db.example") for _ in range(20)))
            assert answers == [["192.0.2.1"]] * 20
            assert len(resolver.questions) == 2

    run(scenario)


def test_what_one_pod_was_told_is_not_believed_for_another() -> None:
    """A pod may rule its own network namespace, and answer there in the resolver's name."""

    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            await here.pod("neighbour", "127.0.0.12")
            resolver.names["db.example"] = [("203.0.113.66", 300)]
            assert await find(here, "db.example", "uid-neighbour") == ["203.0.113.66"]
            resolver.names["db.example"] = [("192.0.2.1", 60)]
            assert await find(here, "db.example") == ["192.0.2.1"]
            assert await find(here, "db.example", "uid-neighbour") == ["203.0.113.66"], "each has its own"

    run(scenario)


def test_an_answer_that_does_not_fit_is_asked_for_over_tcp() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            resolver.names["db.example"] = [("192.0.2.1", 60)]
            resolver.short = True
            assert await find(here, "db.example") == ["192.0.2.1"]

    run(scenario)


@pytest.mark.parametrize("name", ["nobody.example", "not a name", ""])
def test_what_is_not_found_has_no_addresses(name: str) -> None:
    async def scenario() -> None:
        async with zone() as (here, _, _client):
            assert await find(here, name) == []
            assert here.counter("host_lookup_failures") == 1

    run(scenario)


def test_without_a_resolver_nothing_is_found() -> None:
    async def scenario() -> None:
        async with world() as here:
            await here.pod("client", "127.0.0.11")
            assert await find(here, "db.example") == []

    run(scenario)


def test_a_silent_resolver_keeps_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.hosts.DEADLINE_S", 0.05)

    async def scenario() -> None:
        async with zone() as (here, resolver, _):
            resolver.mute = True
            assert await find(here, "db.example") == []

    run(scenario)


def test_the_memory_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.hosts.MOST", 3)

    async def scenario() -> None:
        async with zone() as (here, _, _client):
            for number in range(6):
                await find(here, f"n{number}.example")
            hosts = here.workers[0].plane.hosts
            assert isinstance(hosts, Hosts)
            assert [name for _, name in hosts._known] == ["n3.example", "n4.example", "n5.example"]

    run(scenario)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "::", "::ffff:7f00:1"])
def test_a_name_that_leads_back_to_the_pod_is_refused(address: str) -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, client):
            resolver.names["evil.example"] = [(address, 60)]
            here.update(client, addresses=("127.0.0.11", "fd00::11"))
            await until(lambda: len(here.workers[0]._pods[client.uid].pod.addresses) == 2)
            here.capture(client.outbound, "10.240.0.1", 80)
            here.director.plans["10.240.0.1", 80] = Forward((Hop("", 15001, hostname="evil.example"),))
            assert await talk(client.outbound) == b""
            await until(lambda: "no address of evil.example" in here.log())

    run(scenario)


def test_an_address_of_a_family_that_the_pod_has_not_is_not_taken() -> None:
    async def scenario() -> None:
        async with zone() as (here, resolver, client):
            resolver.names["six.example"] = [("2001:db8::1", 60)]
            here.capture(client.outbound, "10.240.0.1", 80)
            here.director.plans["10.240.0.1", 80] = Forward((Hop("", 80, hostname="six.example"),))
            assert await talk(client.outbound) == b""
            await until(lambda: "no address of six.example" in here.log())

    run(scenario)


def _own_address() -> str:
    """An address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        found: str = sock.getsockname()[0]
    return "" if ip_address(found).is_loopback else found


def test_an_endpoint_known_by_name_is_reached_in_clear_and_by_tunnel() -> None:
    own = _own_address()
    if not own:
        pytest.skip("this machine has only loopback addresses")

    async def scenario() -> None:
        async with zone() as (here, resolver, client), application(own, echo) as port:
            resolver.names["db.example"] = [(own, 60)]
            here.capture(client.outbound, "10.240.0.1", 80)
            here.director.plans["10.240.0.1", 80] = Forward((Hop("", port, hostname="db.example"),))
            assert await talk(client.outbound) == b"hello"
            await until(lambda: f"dst.addr={own}:{port}" in here.log())
            server = await here.pod("server", own)
            hop = Hop(
                *("", server.hbone[1], f"db.example:{port}", (server.identity,)),
                hostname="db.example",
            )
            here.director.plans["10.240.0.1", 80] = Forward((hop,))
            here.director.send(m.Forget(everything=True))
            await until(lambda: not here.workers[0].plane.routes._answers)
            assert await talk(client.outbound) == b"hello"
            await until(lambda: f"dst.hbone_addr={own}:{port}" in here.log())

    run(scenario)
