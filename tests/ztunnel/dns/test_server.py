"""Names of the mesh are answered by us, everything else by real resolvers, over UDP and TCP."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from tests.support.tunnel import World, run, until, world
from ztunnel.ipc import messages as m


class Resolver(asyncio.DatagramProtocol):
    """A real resolver for the tests: answers 9.9.9.9 to everything, after an answer that does not belong."""

    def __init__(self) -> None:
        self.questions: list[DNSRecord] = []
        self.mute = False
        self.answering = asyncio.Event()
        """Over TCP it waits for this."""
        self.answering.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = DNSRecord.parse(data)
        self.questions.append(question)
        if not self.mute:
            self.transport.sendto(self.answer(question, spoiled=True), addr)
            self.transport.sendto(self.answer(question), addr)

    def answer(self, question: DNSRecord, *, spoiled: bool = False) -> bytes:
        reply = question.reply()
        if spoiled:
            reply.header.id = (reply.header.id + 1) % 65536
        reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A("6.6.6.6" if spoiled else "9.9.9.9"), ttl=5))
        packed: bytes = reply.pack()
        return packed

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        question = DNSRecord.parse(await reader.readexactly(size))
        self.questions.append(question)
        answer = self.answer(question)
        await self.answering.wait()
        writer.write(struct.pack(">H", len(answer)) + answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def mesh() -> AsyncIterator[tuple[World, Resolver]]:
    loop = asyncio.get_running_loop()
    async with world() as here:
        transport, resolver = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.53", 0))
        port = transport.get_extra_info("sockname")[1]
        server = await asyncio.start_server(resolver.stream, "127.0.0.53", port)
        here.director.send(
            m.Settings(node="n1", trust_domain="x", cluster_id="c", upstream_resolvers=(f"127.0.0.53:{port}",))
        )
        await here.pod("client", "127.0.0.11", dns=True)
        here.director.names["srv.test"] = ("10.0.0.1", "fd00::1")
        yield here, resolver
        server.close()
        transport.close()


async def ask(here: World, name: str, qtype: str = "A", *, seconds: float = 5.0) -> DNSRecord:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(here.pods["client"].dns_udp)
        sock.send(DNSRecord.question(name, qtype).pack())
        async with asyncio.timeout(seconds):
            return DNSRecord.parse(await loop.sock_recv(sock, 4096))


def test_every_type_that_nobody_knows_counts_as_one() -> None:
    async def scenario() -> None:
        async with mesh() as (here, _):
            for qtype in (16, 64, 1000, 1001, 65000):
                question = DNSRecord.question("other.test")
                question.q.qtype = qtype
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(question.pack(), here.pods["client"].dns_udp)
            counters = here.workers[0].recorder.counters

            def asked() -> dict[str, int]:
                return {name: n for name, n in counters._other.items() if name.startswith("istio_dns_requests")}

            await until(lambda: sum(asked().values()) == 5)
            assert sorted(asked().values()) == [1, 4]

    run(scenario)


async def ask_stream(here: World, *names: str) -> list[DNSRecord]:
    reader, writer = await asyncio.open_connection(*here.pods["client"].dns_tcp)
    for name in names:
        data = DNSRecord.question(name).pack()
        writer.write(struct.pack(">H", len(data)) + data)
    answers = []
    for _ in names:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        answers.append(DNSRecord.parse(await reader.readexactly(size)))
    writer.close()
    return answers


def addresses(record: DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in record.rr]


def test_a_name_of_the_mesh_is_answered_and_remembered_until_forgotten() -> None:
    async def scenario() -> None:
        async with mesh() as (here, resolver):
            for _ in range(3):
                assert addresses(await ask(here, "srv.test")) == ["10.0.0.1"]
            assert addresses(await ask(here, "SRV.test", "AAAA")) == ["fd00::1"]
            assert len(here.director.of(m.NameAsk)) == 2
            assert not resolver.questions
            here.director.names["srv.test"] = ("10.0.0.7",)
            here.director.send(m.Forget(names=True))
            await until(lambda: not here.workers[0]._resolvers.names._answers)
            assert addresses(await ask(here, "srv.test")) == ["10.0.0.7"]

    run(scenario)


def test_every_other_name_and_type_goes_to_a_real_resolver_under_another_id() -> None:
    async def scenario() -> None:
        async with mesh() as (here, resolver):
            numbers = []
            for _ in range(4):
                answer = await ask(here, "example.org")
                assert addresses(answer) == ["9.9.9.9"]
                numbers.append((answer.header.id, resolver.questions[-1].header.id))
            assert any(ours != theirs for ours, theirs in numbers)
            await ask(here, "srv.test", "TXT")
            assert resolver.questions[-1].q.qtype == QTYPE.TXT
            assert here.counter("dns_mismatched_answers") == 5

    run(scenario)


def test_over_tcp_several_questions_are_answered_on_one_connection() -> None:
    async def scenario() -> None:
        async with mesh() as (here, _):
            answers = await ask_stream(here, "srv.test", "example.org", "srv.test")
            found = sorted((str(answer.q.qname), *addresses(answer)) for answer in answers)
            assert found == [("example.org.", "9.9.9.9"), ("srv.test.", "10.0.0.1"), ("srv.test.", "10.0.0.1")]

    run(scenario)


def test_who_has_ended_its_side_after_asking_is_answered_and_then_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.server.IDLE_S", 60.0)

    async def scenario() -> None:
        async with mesh() as (here, resolver):
            resolver.answering.clear()
            reader, writer = await asyncio.open_connection(*here.pods["client"].dns_tcp)
            for name in ("one.example.org", "two.example.org", "srv.test"):
                data = DNSRecord.question(name).pack()
                writer.write(struct.pack(">H", len(data)) + data)
            writer.write_eof()
            answers = []
            for first in (True, False, False):
                (size,) = struct.unpack(">H", await reader.readexactly(2))
                answers.append(addresses(DNSRecord.parse(await reader.readexactly(size))))
                if first:
                    await until(lambda: len(resolver.questions) == 2)
                    resolver.answering.set()
            assert answers == [["10.0.0.1"], ["9.9.9.9"], ["9.9.9.9"]]
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_connection_on_which_nothing_is_asked_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.server.IDLE_S", 0.05)

    async def scenario() -> None:
        async with mesh() as (here, _):
            reader, writer = await asyncio.open_connection(*here.pods["client"].dns_tcp)
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_a_silent_or_absent_director_sends_names_to_the_real_resolver() -> None:
    async def scenario() -> None:
        async with mesh() as (here, _):
            here.director.silent = True
            assert addresses(await ask(here, "srv.test")) == ["9.9.9.9"]
            assert here.counter("dns_director_slow") == 1
            here.director.path.unlink()
            for channel in here.director.channels:
                channel.close()
            await until(lambda: not here.workers[0]._link.up)
            assert addresses(await ask(here, "srv.test")) == ["9.9.9.9"]

    run(scenario)


def test_malformed_queries_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        async with mesh() as (here, _):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(here.pods["client"].dns_udp)
                for junk in (b"", b"x", bytes(12), b"\xff" * 300):
                    sock.send(junk)
                await until(lambda: here.counter("dns_malformed_queries") == 4)
            reader, writer = await asyncio.open_connection(*here.pods["client"].dns_tcp)
            writer.write(b"\x00\x02xx")
            assert await reader.read() == b""
            writer.close()
            assert addresses(await ask(here, "srv.test")) == ["10.0.0.1"]

    run(scenario)


def test_a_resolver_that_never_answers_ends_in_servfail() -> None:
    async def scenario() -> None:
        async with mesh() as (here, resolver):
            resolver.mute = True
            answer = await ask(here, "example.org", seconds=9)
            assert answer.header.rcode == 2
            assert len(resolver.questions) == 2

    run(scenario)


def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.upstream.IN_FLIGHT_LIMIT", 2)

    async def scenario() -> None:
        async with mesh() as (here, resolver):
            resolver.mute = True
            hanging = [asyncio.create_task(ask(here, f"n{n}.example.org", seconds=20)) for n in range(2)]
            await until(lambda: len(resolver.questions) == 2)
            assert (await ask(here, "one.too.many.example.org")).header.rcode == 2
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    run(scenario)


def test_what_does_not_fit_into_one_message_comes_in_part_over_tcp_too() -> None:
    async def scenario() -> None:
        async with mesh() as (here, _):
            here.director.names["many.test"] = tuple(f"10.{n >> 8}.{n & 255}.1" for n in range(5_000))
            (answer,) = await ask_stream(here, "many.test")
            assert answer.header.tc == 1
            assert 4_000 < len(answer.rr) < 5_000

    run(scenario)


def test_questions_that_wait_for_the_director_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.dns.server.WAITING_LIMIT", 2)

    async def scenario() -> None:
        async with mesh() as (here, _):
            assert addresses(await ask(here, "srv.test")) == ["10.0.0.1"]
            here.director.silent = True
            waiting = [asyncio.create_task(ask(here, f"n{n}.test")) for n in range(2)]
            await until(lambda: len(here.director.of(m.NameAsk)) == 3)
            assert (await ask(here, "one.too.many.test")).header.rcode == 2
            assert addresses(await ask(here, "srv.test")) == ["10.0.0.1"], "what is known waits for nobody"
            assert [addresses(answer) for answer in await asyncio.gather(*waiting)] == [["9.9.9.9"]] * 2
            assert addresses(await ask(here, "later.test")) == ["9.9.9.9"], "there is room again"

    run(scenario)
